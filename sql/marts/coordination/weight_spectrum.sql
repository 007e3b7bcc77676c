-- weight_spectrum: the tail of the eigenvalue spectrum of a group of weight vectors.
-- One row per run × preset × token_group × matrix × standardised × group_name × k × draw × rule.
--   run_id              the run
--   preset              definition of rare and common (see position_group)
--   token_group         rare: the influence that ranks the neurons
--   layer               layer of the neurons
--   matrix              w_out or w_in
--   standardised        whether each row is first scaled to mean 0 and variance 1
--   group_name          layer: all neurons
--   k                   neurons
--   draw                0 the group itself; 1, 2 … the random groups (control)
--   pool                where its random groups are drawn: disjoint, or layer if the tested groups
--                       hold too much of it (see neuron_group)
--   rule                how tail_size is chosen: fix_finger, mid or tenth
--   eigenvalues         number of non-zero eigenvalues
--   largest_eigenvalue  the largest
--   alpha               Hill's estimate (eq. 11)
--   alpha_low           lower end of the 95 % interval, as if the tail were independent Pareto
--                       draws; NULL for controls
--   alpha_high          upper end of the same
--   density_exponent    α + 1, which WeightWatcher and powerlaw print as alpha
--   tail_size           k of eq. 11
--   lambda_min          smallest eigenvalue of the tail
--   distance            D, Kolmogorov–Smirnov distance between the tail and the power law
--   rows                of the matrix: its neurons
--   columns             of the matrix: d
--   equal_aspect_alpha  Hill's estimate on the pooled eigenvalues of random sub-matrices of one
--                       shape, 10 × 20, mean over 4 samples of 32: comparable across shapes
--   equal_aspect_sd     its standard deviation over the samples; not over texts or neurons
--   aspect              rows / columns of the sub-matrices
--   subsamples          number of sub-matrices in all samples
--   reason              why a value is NULL; NULL if none is
--
-- See docs/definitions.md, "Spectra"; ES §2.2, 3.4, 4.3, table 4: eigenvalues of W Wᵀ / d. alpha
-- depends on the shape of the matrix: compare it at equal rows and columns only.

create or replace view weight_spectrum as
select
    run.run_id,
    spectrum.preset,
    spectrum.token_group,
    run.layer,
    spectrum.matrix,
    spectrum.standardised,
    spectrum.group_name,
    spectrum.k,
    spectrum.draw,
    spectrum.pool,
    spectrum.rule,
    spectrum.eigenvalues,
    spectrum.largest_eigenvalue,
    spectrum.alpha,
    spectrum.alpha_low,
    spectrum.alpha_high,
    spectrum.density_exponent,
    spectrum.tail_size,
    spectrum.lambda_min,
    spectrum.distance,
    spectrum.rows,
    spectrum.columns,
    spectrum.equal_aspect_alpha,
    spectrum.equal_aspect_sd,
    spectrum.aspect,
    spectrum.subsamples,
    spectrum.reason
from store.weight_spectrum as spectrum
join store.run as run using (run_key);
