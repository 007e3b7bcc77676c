-- dim_document: the documents that a run drew, in the order drawn.
-- One row per run × document.
--   run_id          the run
--   document_id     number of the document within the run, from 0
--   document_hash   SHA-256 of its text
--   domain          label of its corpus
--   tokens          its length in tokens
--   first_position  first position whose target lies in it; NULL if none was sampled

create or replace view dim_document as
select
    run.run_id,
    document.document_id,
    document.document_hash,
    document.domain,
    document.tokens,
    document.first_position
from store.dim_document as document
join store.run as run using (run_key);
