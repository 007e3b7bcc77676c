-- The shape of the matrix behind a spectrum, and its exponent on sub-matrices of one shape. Stored
-- rows have neither until `analyze` computes them anew.
alter table store.weight_spectrum add column "rows" bigint;
alter table store.weight_spectrum add column "columns" bigint;
alter table store.weight_spectrum add column equal_aspect_alpha double;
alter table store.weight_spectrum add column equal_aspect_sd double;
alter table store.weight_spectrum add column aspect double;
alter table store.weight_spectrum add column subsamples bigint;
