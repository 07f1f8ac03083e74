"""Every test of the chain's side runs on the embedded chain and on anvil."""

from tests.support.chains import *  # noqa: F403
