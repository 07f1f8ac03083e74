"""The fake chain passes the tests that ``tests/chain`` holds the embedded chain and anvil to.

They are the same functions, run here on the fake. Left out are those that deploy other code than
ours, which only an EVM runs, and those about how the other two are started.
"""

from __future__ import annotations

from tests.chain.test_contract import *  # noqa: F403
from tests.chain.test_dev_chain import (  # noqa: F401
    test_a_batch_gets_one_answer_each,
    test_a_snapshot_serves_once,
    test_a_transaction_that_no_block_can_hold_is_refused_in_the_words_of_nodes,
    test_accounts_are_the_ones_everybody_knows_and_funded,
    test_errors_have_the_codes_of_json_rpc,
    test_fee_history_tells_the_next_base_fee,
    test_logs_are_found_by_address_and_topic,
    test_mine_makes_that_many_blocks,
    test_revert_brings_back_balances_blocks_and_nonces,
    test_the_chain_id_is_31337,
    test_the_next_block_gets_the_timestamp_that_was_set,
    test_time_moves_by_what_was_asked,
    test_transactions_and_their_block_agree_with_the_receipt,
    test_unknown_blocks_and_transactions_are_null,
)
from tests.chain.test_events import *  # noqa: F403
from tests.chain.test_sender import *  # noqa: F403
