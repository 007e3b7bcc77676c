-- nats: the nats in a whole number of units of 2^-40 nats (see units).
-- Macro nats(units).
-- Example: select nats(units(0.5))

create or replace macro nats(units) as units::double / 1099511627776;
