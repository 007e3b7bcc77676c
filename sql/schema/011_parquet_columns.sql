-- Which columns each Parquet file of facts has: an effect that is added later reads as NULL.
alter table store.fact_file add column column_names varchar[];

update store.fact_file
set
    column_names = [
        'neuron', 'position_id', 'activation', 'delta_loss', 'direct_delta_loss', 'delta_entropy',
        'delta_kl', 'frozen_frequency_delta_loss'
    ];
