from .examples import Chat as Chat
from .examples import Example as Example
from .examples import Message as Message
from .examples import read_examples as read_examples
from .json_lines import Problem as Problem
from .json_lines import read_json_lines as read_json_lines
