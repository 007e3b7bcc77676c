"""Do three papers hold on models that they never saw: docs/findings.md and what it is made from."""
