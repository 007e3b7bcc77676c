-- neuron_group_summary: the size of each group of neurons, and how many of its signs are settled.
-- One row per run × preset × token_group × group_name × k.
--   run_id            the run
--   preset            definition of rare and common (see position_group)
--   token_group       rare: the influence that ranks the neurons, and the mean behind the signs
--   layer             layer of the neurons
--   group_name        as in neuron_group, without random groups
--   k                 neurons asked for
--   members           neurons it has; 0 if it cannot be formed
--   settled_boost     how many have settled_role boost in neuron_sign; NULL without intervals
--   settled_suppress  how many have settled_role suppress
--   mixed             how many are mixed: the 95 % interval of mean_delta_loss holds 0
--   reason            why a value is NULL or there is no neuron; else NULL
--
-- boost and suppress follow the papers, so they also hold mixed neurons; boost_settled and
-- suppress_settled hold none.

create or replace view neuron_group_summary as
with member as (
    select
        chosen.run_id,
        chosen.preset,
        chosen.token_group,
        chosen.layer,
        chosen.group_name,
        chosen.k,
        chosen.neuron,
        signed.settled_role,
        coalesce(chosen.reason, if(signed.role is null, null, signed.reason)) as reason
    from neuron_group as chosen
    left join neuron_sign as signed using (run_id, preset, token_group, neuron)
    where chosen.draw = 0
),

counted as (
    select
        run_id,
        preset,
        token_group,
        layer,
        group_name,
        k,
        count(neuron) as members,
        count(settled_role) > 0 as known,
        count(*) filter (where settled_role = 'boost') as boost,
        count(*) filter (where settled_role = 'suppress') as suppress,
        count(*) filter (where settled_role = 'mixed') as mixed,
        any_value(reason) as reason
    from member
    group by all
)

select
    run_id,
    preset,
    token_group,
    layer,
    group_name,
    k,
    members,
    if(known, boost, null) as settled_boost,
    if(known, suppress, null) as settled_suppress,
    if(known, mixed, null) as mixed,
    reason
from counted;
