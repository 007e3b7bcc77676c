-- token_shown: the text of a token, or the bytes of one that is part of a character.
-- Macro token_shown(text, bytes).
-- Example: select token_shown(text, bytes) from dim_token order by token_id limit 5
--
-- text and bytes are columns of dim_token; bytes become <0xE2><0x80>. Whatever shows tokens to
-- people takes them through this.

create or replace macro token_shown(text, bytes) as coalesce(
    replace(regexp_replace(hex(bytes), '(..)', '<0x\1>', 'g'), '<0x20>', ' '),
    text
);
