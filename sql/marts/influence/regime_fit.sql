-- regime_fit: every window and every model of head and tail fitted to a curve of influence.
-- One row per run × preset × token_group × rank_window, or × head × tail.
--   run_id             the run
--   preset             definition of rare and common (see position_group)
--   token_group        rare or common
--   layer              layer of the neurons
--   rank_window        auto: the line of power_law_fit; middle piece, paper, paper early or
--                      explicit: a straight line on a window; NULL: a model of the whole curve
--   head               none, hinge, level (equal slope, higher intercept) or free; NULL for a
--                      window
--   tail               none, linear or loglog: a + s·ln(ln(N+1) − log rank); NULL for a window
--   pieces             straight pieces; NULL for auto, whose tail is curved
--   kappa              log influence = −κ log rank + β between first_rank and last_rank
--   beta               its β
--   r2                 on the window; for a model, on the whole curve
--   first_rank         first rank of the power law: the head is all ranks before it
--   last_rank          last rank of the power law: the tail is all ranks after it
--   share_within_0_1   of all ranks: |deviation from the power law| < 0.1
--   neurons_above_0_5  deviation from the power law > 0.5
--   head_kappa         minus the head's slope, if it has its own
--   step               how far the head stands above the power law at its end, log influence
--   tail_slope         slope of a linear tail, or s
--   bic                for reference; sorted values are not independent, and BIC finds breaks that
--                      are not there
--   parameters         number of parameters, breaks included
--   ranks              neurons with an influence above 0
--   reason             why a value is NULL; NULL if none is
--
-- See docs/definitions.md, "Influence and the power law"; ES eq. 6 and 12, NC eq. 4. All but `auto`
-- is for comparison: everything else rests on power_law_fit.

create or replace view regime_fit as
select
    run.run_id,
    fit.preset,
    fit.token_group,
    run.layer,
    fit.rank_window,
    fit.head,
    fit.tail,
    fit.pieces,
    fit.kappa,
    fit.beta,
    fit.r2,
    fit.first_rank,
    fit.last_rank,
    fit.share_within_0_1,
    fit.neurons_above_0_5,
    fit.head_kappa,
    fit.step,
    fit.tail_slope,
    fit.bic,
    fit.parameters,
    fit.ranks,
    fit.reason
from store.regime_fit as fit
join store.run as run using (run_key);
