-- audit_failures: how much of what was observed violates an expectation; 0 if it holds.
-- Macro audit_failures(observed, least, most).
--
-- If nothing may be found, what was found; else 1. A NaN is above every bound, and a NULL does not
-- pass.

create or replace macro audit_failures(observed, least, most) as case
    when observed >= coalesce(least, '-inf'::double) and observed <= coalesce(most, 'inf'::double)
        then 0
    when least = 0 and most = 0 then least(greatest(observed, 1), 1e18)
    else 1
end::ubigint;
