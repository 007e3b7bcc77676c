"""A page of one neuron: the card that a report would have of it, by itself."""

from markupsafe import Markup

from rare_tokens.analyses.report.data import text
from rare_tokens.analyses.report.data.cards import cards
from rare_tokens.analyses.report.data.inputs import ReportInputs
from rare_tokens.analyses.report.data.series import group_runs
from rare_tokens.analyses.report.data.tables import described
from rare_tokens.analyses.report.page.page import Texts, packed_passages, policy, resource, script, template
from rare_tokens.common.program import program


def render_neuron_page(inputs: ReportInputs) -> str:
    """HTML that loads nothing, of the only neuron of the only run of `inputs`.

    Raises:
        ValueError: the inputs are not of one run and one neuron.
    """
    inputs = inputs.conformed()
    neurons = inputs.moments.select("run_id", "neuron").unique()
    if neurons.height != 1 or inputs.runs.height != 1:
        raise ValueError("a neuron's page takes the frames of one neuron of one run")
    (one,) = group_runs(inputs.runs, inputs.influence)
    (shown,) = cards(one, inputs, described(inputs, neurons))
    texts = Texts([])
    passages = packed_passages([shown], texts)
    code = script("base.js", "cards.js", "neuron.js")
    return template("neuron.html.jinja").render(
        shown=shown,
        run=one.shown.row,
        style=Markup(resource("page.css")),  # noqa: S704 - our own file
        script=Markup(code),  # noqa: S704 - our own file
        policy=policy(code),
        data=text.inline_json({"texts": texts.every, "passages": passages, "program": program()}),
    )
