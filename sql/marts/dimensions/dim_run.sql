-- dim_run: what was ingested: from which model and text, how, and how far it got.
-- One row per run.
--   run_id                  the run: model, revision and a hash over what identifies it
--   run_key                 small integer that stands for run_id in the stored facts
--   model                   hub id, or the name of a local folder
--   revision                branch, tag, commit or checkpoint of the model
--   layer                   layer whose MLP neurons were ablated, counted from 0
--   status                  running, published, rejected (failed its checks; no facts here),
--                           missing (the revision has no weights, or the corpora lack the positions
--                           asked for), failed (could not be loaded or computed) or twin (see
--                           twin_of; no facts); the command `runs` also shows interrupted and
--                           staged runs, which it sees in the parts folder
--   positions               T, sampled positions
--   neurons                 N, neurons of the layer
--   window_length           predicted positions in a window
--   tokenizer_id            identifies the tokenizer and its vocabulary
--   frequency_source_id     identifies the counts that decide what is rare
--   corpus                  corpus the positions were drawn from
--   model_hash              hash of the weights
--   corpus_hash             hash of the documents drawn
--   ablation                what replaces an activation: mean or zero
--   seed                    seed of the sample
--   dtype                   number format of the forward pass
--   device                  device that it ran on
--   tolerance               absolute tolerance on delta_loss, nats
--   exact_pairs             pairs recomputed exactly because their error bound exceeded the
--                           tolerance
--   self_check_error        largest error of the numeric self-check, in units of its tolerance
--   structural_check_error  largest error against the hooked model, in units of its tolerance
--   options                 the command's options, defaults included, JSON; folders of a path are
--                           left out
--   facts                   what was found or chosen for the run, JSON: path (moments or dense) and
--                           what makes it dense (between), layers (of the model), device,
--                           offloaded_bytes, weights_hash (equal where a checkpoint was only saved
--                           anew); ignored_weights, if there are any; tokenizer, if it is the
--                           folder above's; streams, the data sets of a hub at their commits; for
--                           matched contexts also tagger, rare_tokens, rare_tokens_met, pairs and
--                           matched_contexts
--   created_at              start of the ingest, UTC
--   seconds                 duration of the ingest
--   code_version            version of this package that wrote the run
--   separator_token_id      token between packed documents; its positions are in no token group
--   effects                 which effects fct_effect holds for the run
--   packages                versions of the packages that the numbers depend on, JSON
--   frequency_source        the frequency source in words
--   status_reason           why the run was rejected, failed, is missing or a twin, was published
--                           all the same, or waits: a run measured together with it was refused
--   stage_seconds           duration of each stage of the ingest, JSON
--   warnings                what the ingest warned about
--   identity                the values whose hash is in run_id, JSON
--   published_at            when its facts became visible here, UTC
--   contexts                what its positions are: a sample of the corpus, or nc-matched
--   store                   where its facts are: native (in the warehouse) or parquet (fact_file)
--   training_stage          stage of training that the revision names; NULL: it names none
--   training_step           step that it names, or the checkpoint's number where they are counted;
--                           NULL: the revision is no checkpoint
--   training_tokens         tokens seen in training, as it says
--   training_branch         what else it says (seed2, ingredient1, unsharded): a series is of one
--                           branch; NULL: nothing
--   twin_of                 run_id of the run of the same series that has the same weights, so that
--                           nothing was computed; NULL: this is no twin
--   quantisation            of the weights as they are stored; NULL: none

create or replace view dim_run as
select
    run_id,
    run_key,
    model,
    revision,
    layer,
    status,
    positions,
    neurons,
    window_length,
    tokenizer_id,
    frequency_source_id,
    corpus,
    model_hash,
    corpus_hash,
    ablation,
    seed,
    dtype,
    device,
    tolerance,
    exact_pairs,
    self_check_error,
    structural_check_error,
    options,
    facts,
    created_at,
    seconds,
    code_version,
    separator_token_id,
    effects,
    packages,
    frequency_source,
    status_reason,
    stage_seconds,
    warnings,
    identity,
    published_at,
    contexts,
    store,
    training_stage,
    training_step,
    training_tokens,
    training_branch,
    twin_of,
    quantisation
from store.run;
