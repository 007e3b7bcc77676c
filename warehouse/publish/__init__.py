"""From parts to a published run: staging, the audit, the marts; and what is added to a run later."""
