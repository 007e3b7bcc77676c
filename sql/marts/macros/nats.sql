-- nats: the nats that a whole number of 2^-40 nats stands for (see units).
-- Macro nats(units).

create or replace macro nats(units) as units::double / 1099511627776;
