-- plateau_match: whether the neurons of a run's head have their partners in another run's head.
-- One row per run × other run × preset × token_group.
--   run_id              the run
--   other_run_id        a run on the same positions of the same text
--   preset              definition of rare and common (see position_group); NULL in the single row
--                       of two runs that cannot be matched
--   token_group         rare or common
--   layer               layer of the run
--   other_layer         layer of the other run
--   first               b of the run: last rank of its head (see power_law_fit)
--   other_first         b of the other
--   matched             how many of the first b neurons have their partner (see neuron_match) among
--                       the other's first b
--   expected            the same with partners at random
--   p_value             probability of as many or more with partners at random
--   head_correlation    mean |correlation| of the first b neurons with their partners
--   layer_correlation   the same of all neurons of the layer
--   chance_correlation  mean chance_correlation of all neurons
--   reason              why a value is NULL; NULL if none is
--
-- Filled by `compare`. A head is not yet a plateau: regime_decision says whether it is one.

create or replace view plateau_match as
select
    run.run_id,
    found.other_run_id,
    found.preset,
    found.token_group,
    run.layer,
    other.layer as other_layer,
    found.first,
    found.other_first,
    found.matched,
    found.expected,
    found.p_value,
    found.head_correlation,
    found.layer_correlation,
    found.chance_correlation,
    found.reason
from store.plateau_match as found
join store.run as run using (run_key)
join store.run as other on found.other_run_id = other.run_id and other.status = 'published';
