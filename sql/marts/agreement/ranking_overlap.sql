-- ranking_overlap: how far two rankings of a layer's neurons are the same.
-- One row per run × preset × token_group × ranking × other run × preset × token_group × ranking.
--   run_id                  the run
--   preset                  definition of rare and common (see position_group) of the ranking;
--                           NULL: it is of no token group
--   token_group             rare or common, of the ranking; NULL likewise
--   ranking                 influence; or a property of the neurons (see dim_neuron):
--                           null_space_share, frequency_correlation (by its size)
--   other_run_id            the run of the other ranking; the run itself where both are its own
--   other_preset            preset of the other
--   other_token_group       token group of the other
--   other_ranking           what ranks the neurons in the other; influence on resampled text: the
--                           same ranking on bootstrap samples of the windows: how stable it is
--   layer                   layer of the neurons
--   rank_correlation        Spearman's, over all neurons; on resampled text the median over samples
--   rank_correlation_low    lower end of its 95 % interval over windows
--   rank_correlation_high   upper end of the same
--   shared_10               how many of the first 10 neurons are among the first 10 of the other
--   shared_10_low           lower end of its interval
--   shared_10_high          upper end of the same
--   shared_50               the same of the first 50
--   shared_50_low           lower end of its interval
--   shared_50_high          upper end of the same
--   expected_10             what two unrelated rankings share of the first 10: 100 / neurons
--   p_10                    probability that they share as many as shared_10 or more
--   expected_50             the same of the first 50
--   p_50                    probability that unrelated rankings share as many as shared_50 or more
--   neurons                 number of neurons ranked
--   windows                 number of windows resampled
--   draws                   bootstrap samples
--   reason                  why a value is NULL; NULL if none is. A ranking beside itself has no
--                           expected number and no p
--
-- Pairs of a run's own rankings, and pairs of runs of the same layer of a model, group by group. A
-- pair is listed once. Where two runs have the same positions, the same windows are resampled for
-- both.

create or replace view ranking_overlap as
with found as (
    select *
    from store.ranking_overlap
    union all by name
    select across.*
    from store.ranking_overlap_across as across
    join store.run as other on across.other_run_id = other.run_id and other.status = 'published'
)

select
    run.run_id,
    found.preset,
    found.token_group,
    found.ranking,
    coalesce(found.other_run_id, run.run_id) as other_run_id,
    found.other_preset,
    found.other_token_group,
    found.other_ranking,
    run.layer,
    found.rank_correlation,
    found.rank_correlation_low,
    found.rank_correlation_high,
    found.shared_10,
    found.shared_10_low,
    found.shared_10_high,
    found.shared_50,
    found.shared_50_low,
    found.shared_50_high,
    found.expected_10,
    found.p_10,
    found.expected_50,
    found.p_50,
    found.neurons,
    found.windows,
    found.draws,
    found.reason
from found
join store.run as run using (run_key);
