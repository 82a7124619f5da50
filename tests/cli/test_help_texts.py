"""Every argument of every command has a help text."""

import argparse

import pytest

from share_jax.cli.main import COMMANDS, parser


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_of_a_command_is_explained(command: str) -> None:
    (commands,) = [action for action in parser([command])._actions if isinstance(action, argparse._SubParsersAction)]
    actions = commands.choices[command]._actions
    assert len(actions) > 3
    assert [action.dest for action in actions if not action.help] == []
