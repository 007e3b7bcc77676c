-- attribution_agreement: whether first-order estimates of effects tell what the exact effects do.
-- One row per run × preset × token_group × decile.
--   run_id                 the run
--   preset                 definition of rare and common (see position_group)
--   token_group            rare or common
--   layer                  layer of the neurons
--   decile                 tenth of the pairs of neuron and position by |delta_loss|, 1 the
--                          smallest; NULL: all of them
--   rank_correlation       Spearman's, of the neurons' mean |attributed_delta_loss| with their
--                          influence; only where decile is NULL, as are shared_10 and shared_50
--   rank_correlation_low   lower end of its 95 % interval over windows of text
--   rank_correlation_high  upper end of the same
--   shared_10              how many of the first 10 neurons by influence are among the first 10 by
--                          mean |attributed_delta_loss|
--   shared_10_low          lower end of its interval
--   shared_10_high         upper end of the same
--   shared_50              the same of the first 50
--   shared_50_low          lower end of its interval
--   shared_50_high         upper end of the same
--   wrong_sign_share       share of the pairs whose estimate has the other sign than delta_loss
--   wrong_sign_share_low   lower end of its interval
--   wrong_sign_share_high  upper end of the same
--   relative_error         median over the pairs of |attributed_delta_loss − delta_loss| /
--                          |delta_loss|, from counts in classes 5 % wide
--   relative_error_low     lower end of its interval
--   relative_error_high    upper end of the same
--   error_ratio            Σ |attributed_delta_loss − delta_loss| / Σ |delta_loss| over the pairs
--   error_ratio_low        lower end of its interval
--   error_ratio_high       upper end of the same
--   smallest_delta         smallest |delta_loss| of the pairs, nats
--   largest_delta          largest, nats
--   pairs                  pairs whose |delta_loss| exceeds the run's tolerance; only they count in
--                          wrong_sign_share, relative_error and error_ratio
--   pairs_left_out         the other pairs of the group; only where decile is NULL
--   windows                number of windows resampled
--   draws                  bootstrap samples
--   reason                 why a value is NULL; NULL if none is
--
-- See docs/references.md. The values need `ingest --effects loss,attribution`. Deciles are those of
-- the whole token group in every sample of windows.

create or replace view attribution_agreement as
select
    run.run_id,
    agreement.preset,
    agreement.token_group,
    run.layer,
    agreement.decile,
    agreement.rank_correlation,
    agreement.rank_correlation_low,
    agreement.rank_correlation_high,
    agreement.shared_10,
    agreement.shared_10_low,
    agreement.shared_10_high,
    agreement.shared_50,
    agreement.shared_50_low,
    agreement.shared_50_high,
    agreement.wrong_sign_share,
    agreement.wrong_sign_share_low,
    agreement.wrong_sign_share_high,
    agreement.relative_error,
    agreement.relative_error_low,
    agreement.relative_error_high,
    agreement.error_ratio,
    agreement.error_ratio_low,
    agreement.error_ratio_high,
    agreement.smallest_delta,
    agreement.largest_delta,
    agreement.pairs,
    agreement.pairs_left_out,
    agreement.windows,
    agreement.draws,
    agreement.reason
from store.attribution_agreement as agreement
join store.run as run using (run_key);
