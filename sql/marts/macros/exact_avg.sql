-- exact_avg: mean of a column in nats, equal to the last bit on any number of threads.
-- Macro exact_avg(nats).
-- Example: select run_id, exact_avg(loss) from dim_position group by run_id
--
-- Whole units of 2^-40 nats are summed (see units); avg() gives a different last digit each time.

create or replace macro exact_avg(nats) as
sum((nats::double * 1099511627776)::bigint)::double / 1099511627776 / count(nats);
