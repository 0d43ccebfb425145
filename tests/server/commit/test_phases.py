import pytest

from zeo_core.errors import StorageTransactionError
from zeo_server.commit.phases import ENDED, IN_DOUBT, TRANSITIONS, Phase, Step, advance


def test_every_phase_has_its_row() -> None:
    assert set(TRANSITIONS) == set(Phase)


def test_a_transaction_that_goes_well() -> None:
    phase = Phase.BEGUN
    for step in (Step.STAGE, Step.STAGE, Step.VOTE, Step.GRANT, Step.FINISH, Step.WRITTEN):
        phase = advance(phase, step)
    assert phase is Phase.COMMITTED


def test_what_is_with_the_writer_cannot_be_aborted() -> None:
    with pytest.raises(StorageTransactionError, match="abort is not possible: the transaction is finishing"):
        advance(Phase.FINISHING, Step.ABORT)


def test_nothing_is_finished_without_a_vote() -> None:
    for phase in Phase:
        if phase is not Phase.VOTED:
            with pytest.raises(StorageTransactionError):
                advance(phase, Step.FINISH)


def test_ended_means_that_no_step_is_left() -> None:
    assert {phase for phase, steps in TRANSITIONS.items() if not steps} == ENDED


def test_every_other_phase_leads_to_an_end() -> None:
    reached = set(ENDED)
    while True:
        more = {phase for phase, steps in TRANSITIONS.items() if reached & set(steps.values())}
        if more <= reached:
            break
        reached |= more
    assert reached == set(Phase)


def test_in_doubt_is_what_only_the_end_of_the_commit_settles() -> None:
    assert {Phase.VOTED, Phase.FINISHING} == IN_DOUBT


def test_a_client_that_resolves_votes_again() -> None:
    phase = Phase.BEGUN
    for step in (Step.STAGE, Step.VOTE, Step.CONFLICT, Step.STAGE, Step.VOTE, Step.GRANT):
        phase = advance(phase, step)
    assert phase is Phase.VOTED
