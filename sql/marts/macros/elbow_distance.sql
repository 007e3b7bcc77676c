-- elbow_distance: how far a point of a frequency curve lies from the chord between its ends.
-- Macro elbow_distance(count, rank, most, least, types).
-- Example: select elbow_distance(3, 20, 900, 1, 500)
--
-- Measured along the axis of ln count, over the axis of ln rank. most and least are the counts at
-- rank 1 and at the last rank, types. The elbow is the point furthest away, ties to the smaller
-- rank.

create or replace macro elbow_distance(count, rank, most, least, types) as
abs(ln(count) - ln(most) - (ln(least) - ln(most)) * ln(rank) / ln(types));
