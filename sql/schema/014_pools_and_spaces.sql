-- Where the random groups are drawn (`pool`), and of what a correlation is (`space`).
alter table store.neuron_group add column pool varchar;
alter table store.activation_correlation add column pool varchar;
alter table store.activation_correlation add column space varchar;
alter table store.cosine_similarity add column pool varchar;
alter table store.effective_dimension add column pool varchar;
alter table store.neuron_cluster add column pool varchar;
alter table store.mutual_information add column pool varchar;
alter table store.graph_modularity add column pool varchar;
alter table store.weight_spectrum add column pool varchar;
alter table store.group_test add column pool varchar;

-- Until now a preset had random groups of one pool: of the whole layer where the tested groups held
-- more than a tenth of it, else outside them. So they are of the layer where one holds a neuron of
-- a tested group.
update store.neuron_group as control
set
    pool = if(
        exists (
            from store.neuron_group as other
            join store.neuron_group as tested using (run_key, preset, token_group, neuron)
            where
                other.group_name = 'control' and tested.group_name <> 'control'
                and other.run_key = control.run_key and other.preset = control.preset
                and other.token_group = control.token_group
        ),
        'layer', 'disjoint'
    )
where control.group_name = 'control';

-- Every statistic was compared with those.
create temporary table stored_pool as
select distinct run_key, preset, pool from store.neuron_group
where pool is not null;

update store.activation_correlation as result set pool = stored_pool.pool from stored_pool
where result.run_key = stored_pool.run_key and result.preset = stored_pool.preset;

update store.cosine_similarity as result set pool = stored_pool.pool from stored_pool
where result.run_key = stored_pool.run_key and result.preset = stored_pool.preset;

update store.effective_dimension as result set pool = stored_pool.pool from stored_pool
where result.run_key = stored_pool.run_key and result.preset = stored_pool.preset;

update store.neuron_cluster as result set pool = stored_pool.pool from stored_pool
where result.run_key = stored_pool.run_key and result.preset = stored_pool.preset;

update store.mutual_information as result set pool = stored_pool.pool from stored_pool
where result.run_key = stored_pool.run_key and result.preset = stored_pool.preset;

update store.graph_modularity as result set pool = stored_pool.pool from stored_pool
where result.run_key = stored_pool.run_key and result.preset = stored_pool.preset;

update store.weight_spectrum as result set pool = stored_pool.pool from stored_pool
where
    result.run_key = stored_pool.run_key and result.preset = stored_pool.preset
    and result.group_name <> 'layer';

update store.group_test as result set pool = stored_pool.pool from stored_pool
where result.run_key = stored_pool.run_key and result.preset = stored_pool.preset;

drop table stored_pool;

-- Every correlation was of the activations themselves, and its test says so now.
update store.activation_correlation set space = 'activation';

update store.group_test set setting = 'space=activation, ' || setting
where analysis = 'activation_correlation';
