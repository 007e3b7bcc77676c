-- student_975: Student's t below which 97.5 % of the distribution lie.
-- Macro student_975(freedom).
-- Example: select student_975(13)
--
-- From 7 degrees of freedom on by the Cornish and Fisher expansion (Abramowitz and Stegun 26.7.5),
-- whose error is below 1e-3 there; below that from the table. NULL below 1.

create or replace macro student_975(freedom) as case
    when freedom < 1 then null
    when freedom <= 6 then list_extract(
        [12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912], freedom::int
    )
    else
        1.959964 + 2.372271 / freedom + 2.822499 / freedom ** 2 + 2.555850 / freedom ** 3
end;
