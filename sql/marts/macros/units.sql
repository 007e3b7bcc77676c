-- units: nats as a whole number of units of 2^-40 nats, which can be summed exactly.
-- Macro units(nats).
-- Example: select units(0.5)
--
-- A parallel sum of floats depends on the order in which threads finish; whole numbers add up to
-- the same total in any order. The rounding, 1e-12, is a millionth of the tolerance on delta_loss.

create or replace macro units(nats) as (nats::double * 1099511627776)::bigint;
