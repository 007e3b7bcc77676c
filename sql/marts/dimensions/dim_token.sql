-- dim_token: the vocabulary of a tokenizer.
-- One row per tokenizer × token.
--   tokenizer_id  the tokenizer
--   token_id      number of the token
--   text          the decoded token, with its leading space if it has one
--   is_word       stripped, it is alphabetic, has two letters or more, and is in the dictionary
--   starts_word   it begins a new word
--   is_special    a separator, begin or other special token
--   bytes         what the token adds, where it is part of a character, whose text shows only a
--                 replacement sign; NULL: the text says it, or the tokenizer does not

create or replace view dim_token as
select
    tokenizer.tokenizer_id,
    token.token_id,
    token.text,
    token.is_word,
    token.starts_word,
    token.is_special,
    token.bytes
from store.dim_token as token
join store.tokenizer as tokenizer using (tokenizer_key);
