-- percentile_bucket: stands for a percentile wherever it is compared with 0, 5, 10 … 50.
-- Macro percentile_bucket(percentile).
-- Example: select percentile_bucket(12)
--
-- A multiple of 5 up to 50 is its own bucket, the open intervals between them are 2.5, 7.5 …, all
-- above 50 is 75. So <, <=, =, >=, > against a multiple of 5 up to 50 give the same as the
-- percentile itself.

create or replace macro percentile_bucket(percentile) as case
    when percentile > 50 then 75
    when percentile = 5 * floor(percentile / 5) then percentile
    else 5 * floor(percentile / 5) + 2.5
end::float;
