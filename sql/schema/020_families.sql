-- Which family of tests a corrected p belongs to, in words. Every stored p was corrected within the
-- tests of one statistic and setting, over the groups of one preset and positions of one run.
alter table store.group_test add column family varchar;

update store.group_test
set
    family = test || ' tests of ' || analysis || '.' || statistic
    || coalesce(', ' || nullif(setting, ''), '')
    || ': groups of one preset and positions of one run';
