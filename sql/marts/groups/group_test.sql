-- group_test: every statistic of every group tested against random groups.
-- One row per run × preset × token_group × analysis × statistic × setting × group × test.
--   run_id          the run
--   preset          definition of rare and common (see position_group)
--   token_group     rare: the positions measured, and the influence that ranks the neurons
--   layer           layer of the neurons
--   analysis        the relation that holds the value
--   statistic       its column
--   setting         the values of its other keys: space=activation, comparison=within
--   group_name      the tested group (see neuron_group)
--   other_group     the other group, if the value is between two
--   k               neurons in the group
--   pool            where the random groups are drawn: disjoint or layer (see neuron_group)
--   test            control (primary) or mann_whitney (as the papers print it)
--   sample          what the tested values are, in words
--   sample_size     number of them
--   reference       what they are compared with, in words
--   reference_size  number of them
--   exchangeable    may the two samples be shuffled into each other under the null?
--   alternative     two-sided, greater or less
--   value           the group's statistic, or the mean of the sample
--   low             lower end of the value's 95 % bootstrap interval over windows
--   high            upper end of the same
--   reference_mean  mean of the reference
--   reference_sd    its standard deviation
--   test_statistic  Mann–Whitney's U; in a control test the value itself
--   cohens_d        difference of means in standard deviations
--   p_value         p-value before correction
--   family          the tests over which p is corrected, in words: those of one statistic and
--                   setting, over the groups of one preset and positions of one run
--   tests           defined p-values in that family
--   p_bonferroni    corrected over the family
--   p_holm          corrected over the family
--   reason          why a value is NULL; NULL if none is
--
-- See docs/definitions.md, "Tests of significance". The primary p, of a control test, is (1 +
-- number as extreme) / (1 + C). Where presets, positions or runs are read together, macro
-- group_test_across corrects over all of them.

create or replace view group_test as
select
    run.run_id,
    result.preset,
    result.token_group,
    run.layer,
    result.analysis,
    result.statistic,
    result.setting,
    result.group_name,
    result.other_group,
    result.k,
    result.pool,
    result.test,
    result.sample,
    result.sample_size,
    result.reference,
    result.reference_size,
    result.exchangeable,
    result.alternative,
    result.value,
    result.low,
    result.high,
    result.reference_mean,
    result.reference_sd,
    result.test_statistic,
    result.cohens_d,
    result.p_value,
    result.family,
    result.tests,
    result.p_bonferroni,
    result.p_holm,
    result.reason
from store.group_test as result
join store.run as run using (run_key);
