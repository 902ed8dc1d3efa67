"""What holds for every test: no network, and no timing in hypothesis."""

import os

import hypothesis

# Before anything imports huggingface_hub, which reads it once.
os.environ["HF_HUB_OFFLINE"] = "1"

# A deadline per example measures the load of the machine, not the code.
hypothesis.settings.register_profile("prism", deadline=None)
hypothesis.settings.load_profile("prism")
