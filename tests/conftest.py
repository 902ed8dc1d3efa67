"""What holds for every test: no network, and no timing in hypothesis."""

import os

import hypothesis

# Before anything imports huggingface_hub, which reads it once.
os.environ["HF_HUB_OFFLINE"] = "1"

# A deadline per example measures the load of the machine, not the code. CI judges a change, so it
# tries the same examples every time; everybody else's runs look for new ones.
hypothesis.settings.register_profile("prism", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("prism")
