from __future__ import annotations

import pytest
import torch

from genvla.evaluation import evaluate
from genvla.evaluation.episodes import initial_noise
from genvla.evaluation.evaluate import policy_act
from genvla.policy.flow_policy import FlowPolicy
from genvla.types import EpisodeSpec
from tests.evaluation.toy import ToyEnv

SCENES = ["bowl", "mug"]


@pytest.fixture(scope="module")
def policy() -> FlowPolicy:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return FlowPolicy().eval()


def test_actions_follow_from_their_row_alone(policy: FlowPolicy) -> None:
    env = ToyEnv(3)
    observation = env.reset(lambda slot, k: EpisodeSpec("bowl", slot) if k == 0 else None)
    noise = torch.stack([initial_noise(EpisodeSpec("bowl", slot), 0) for slot in range(3)])
    act = policy_act(policy)
    actions, turned = act(observation, noise), act(observation[[2, 0, 1]], noise[[2, 0, 1]])
    assert torch.allclose(turned, actions[[2, 0, 1]], atol=1e-6)
    assert torch.equal(act(observation, noise), actions)
    assert not torch.allclose(act(observation, noise.flip(0)), actions, atol=1e-3)


def test_evaluation_repeats_and_does_not_depend_on_the_number_of_slots(policy: FlowPolicy) -> None:
    policy.train()
    results = [evaluate(policy, ToyEnv(slots), SCENES, 3, seed=1, split="heldout") for slots in (1, 4, 4)]
    assert policy.training
    assert results[1] == results[2]
    assert results[0].records == results[1].records
    assert [record.scene_id for record in results[0].records] == SCENES * 3
    protocol = results[1].protocol
    assert (protocol.split, protocol.seed, protocol.num_envs, protocol.max_chunks) == ("heldout", 1, 4, 6)
    assert protocol.integration_steps == policy.integration_steps


def test_a_policy_that_fails_is_left_in_its_mode(policy: FlowPolicy) -> None:
    policy.train()
    with pytest.raises(AttributeError):
        evaluate(policy, object(), SCENES, 1, seed=0)
    assert policy.training
