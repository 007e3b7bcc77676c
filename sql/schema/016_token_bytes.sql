-- The bytes of tokens that are parts of characters, so that several are decoded together. Tokens
-- that are stored already get theirs when a run with their tokenizer is published again.
alter table store.dim_token add column bytes blob;
