-- spectral_density: the spectrum of a group of weight vectors as a histogram in log λ.
-- One row per run × preset × token_group × matrix × standardised × group_name × k × bin.
--   run_id        the run
--   preset        definition of rare and common (see position_group)
--   token_group   rare: the influence that ranks the neurons
--   layer         layer of the neurons
--   matrix        w_out or w_in
--   standardised  whether each row is first scaled to mean 0 and variance 1
--   group_name    layer: all neurons
--   k             neurons
--   draw          0: the random groups have no densities
--   bin           from 1, of equal width from the smallest to the largest eigenvalue
--   log10_left    left edge
--   log10_right   right edge
--   eigenvalues   eigenvalues in the bin
--   density       share of the eigenvalues per decade
--   reason        why a value is NULL; NULL if none is
--
-- See docs/definitions.md, "Spectra"; ES eq. 3: eigenvalues of W Wᵀ / d that are not zero.

create or replace view spectral_density as
select
    run.run_id,
    density.preset,
    density.token_group,
    run.layer,
    density.matrix,
    density.standardised,
    density.group_name,
    density.k,
    density.draw,
    density.bin,
    density.log10_left,
    density.log10_right,
    density.eigenvalues,
    density.density,
    density.reason
from store.spectral_density as density
join store.run as run using (run_key);
