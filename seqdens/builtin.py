"""The table of contents: what seqdens itself provides, kind -> name -> "module:object".

Installed packages add to it under the entry point groups "seqdens.<kind>"; nothing is imported before its
name is used.
"""

BUILTIN: dict[str, dict[str, str]] = {
    "datasets": {
        "hershey": "seqdens.datasets.hershey:Hershey",
        "iamondb": "seqdens.datasets.iamondb:IamOnDB",
        "svc": "seqdens.datasets.svc:SVC2004",
    },
    "encoders": {
        "memoryless": "seqdens.encoders.memoryless:Memoryless",
        "stacked-lstm": "seqdens.encoders.stacked_lstm:StackedLSTM",
        "window-lstm": "seqdens.encoders.window_lstm:WindowLSTM",
    },
    "heads": {
        "gmm-bernoulli": "seqdens.heads.gmm_bernoulli:GMMBernoulli",
    },
    "regularisers": {},
    "experiments": {
        "handwriting": "seqdens.experiments.handwriting:HANDWRITING",
        "synthesis": "seqdens.experiments.synthesis:SYNTHESIS",
    },
    "commands": {
        "run": "seqdens.cli.run:run",
        "prepare": "seqdens.cli.prepare:prepare",
        "sample": "seqdens.cli.sample:sample",
        "write": "seqdens.cli.write:write",
        "evaluate": "seqdens.cli.evaluate:evaluate",
        "plot": "seqdens.cli.plot:plot",
        "styles": "seqdens.cli.styles:styles",
        "export": "seqdens.cli.export:export",
        "list": "seqdens.cli.list_:list_",
        "show": "seqdens.cli.show:show",
        "plugins": "seqdens.cli.plugins:plugins",
        "new-plugin": "seqdens.cli.new_plugin:new_plugin",
    },
}

KINDS = tuple(BUILTIN)
