-- fct_group_effect: what ablating a group of neurons at once does to the loss at one position.
-- One row per run × group_name × position.
--   run_id       the run
--   layer        layer of the neurons
--   group_name   the group (see dim_group)
--   position_id  the position
--   delta_loss   loss with all neurons of the group ablated at once − loss without, nats
--
-- This is not the sum of the neurons' own effects in fct_effect: neurons that would compensate for
-- one another are gone too.

create or replace view fct_group_effect as
select
    run.run_id,
    run.layer,
    effect.group_name,
    effect.position_id,
    effect.delta_loss
from store.fct_group_effect as effect
join store.run as run using (run_key);
