"""One Atari emulator, whose game can be played again in another process.

The emulator can serialise itself, but leaves out the picture and what sprites
look like between two writes to the video chip, so that some games (Amidar,
Q*bert, Yars' Revenge) go on differently after it; and its reader trusts the
bytes it is given, which a checkpoint's reader must not. So a game is kept here
as its beginning and its actions, and restored by playing it again: about 10000
frames a second, 11 s for the longest episode of the benchmark. Read next:
`atari.py`, which decides on the actions.
"""

import hashlib

import numpy as np
from ale_py import Action, ALEInterface, ALEState, LoggerMode, roms

from dreamer.envs.games import rom_name

# A serialised emulator begins with six numbers of four bytes, the length of
# the console's part, and of that part a checksum of the game (its length and
# 32 letters), the length of a name, the name, and the number of cycles. The
# console's random numbers follow: the length of a text, and the text.
SIZE_AT, NAME_AT, RANDOM_AT = 24, 28 + 36 + 4, 28 + 36 + 4 + 6 + 4


class Emulator:
    """An emulator that remembers all frames of the game since its reset.

    Args:
        game: name as in `dreamer.envs.games`.
        seed: seed of the emulator.

    Attributes:
        ale: the emulator itself, to be looked at; frames are played by `act`.

    Raises:
        ConfigError: if there is no such game.
    """

    def __init__(self, game: str, seed: int) -> None:
        self._rom = roms.get_rom_path(rom_name(game))
        # Keeps the emulator from printing its banner.
        ALEInterface.setLoggerMode(LoggerMode.Error)
        self.ale = ALEInterface()
        self.load(seed)

    def load(self, seed: int) -> None:
        """Starts over as a new emulator of that seed."""
        # The emulator reads its options when it loads a game.
        self.ale.setFloat("repeat_action_probability", 0.0)
        self.ale.setInt("random_seed", seed)
        self.ale.loadROM(self._rom)
        # What the last reset left as it was: memory, and the state of all.
        self._origin: tuple[np.ndarray, bytes] | None = None
        self._played = bytearray()

    def new_game(self) -> None:
        """Resets the console, which keeps its memory and random numbers."""
        self._origin = self._memory()
        self._played.clear()
        self.ale.reset_game()

    def act(self, action: Action) -> int:
        """Plays one frame; returns its reward."""
        self._played.append(action.value)
        return self.ale.act(action)

    def history(self) -> dict[str, np.ndarray]:
        """The game since its reset, for `replay`.

        Returns:
            `ram` uint8 (128,) and `random` uint32 (n,): what the reset kept;
            `played` uint8 (frames,): all actions since; `digest` uint8 (32,):
            of what came of it. Before any reset, what it would keep, and
            `played` and `digest` are empty.

        Raises:
            ValueError: if this version of the emulator is not understood.
        """
        ram, state = self._origin or self._memory()
        return {
            "ram": ram,
            "random": np.array(_split(state)[1].split(), np.uint32),
            "played": np.frombuffer(bytes(self._played), np.uint8),
            "digest": self._digest() if self._origin else np.empty(0, "u1"),
        }

    def replay(self, history: dict[str, np.ndarray]) -> None:
        """Plays a history of this game from its reset to its last frame.

        Raises:
            ValueError: if it is none, or does not come out as it did.
        """
        played, digest = history["played"], history["digest"]
        known = {action.value for action in self.ale.getLegalActionSet()}
        if not set(played.tolist()) <= known:
            raise ValueError("an action is not one of this game's")
        self._remember(history["ram"], history["random"])
        self._played.clear()
        self._origin = None
        if not digest.size:
            return
        self.new_game()
        for action in played.tolist():
            self.act(Action(action))
        if not np.array_equal(self._digest(), digest):
            raise ValueError(
                "played again, the game does not come out as it did; it may "
                "have been saved with another version of ale-py"
            )

    def _memory(self) -> tuple[np.ndarray, bytes]:
        return self.ale.getRAM().copy(), self.ale.cloneState().serialize()

    def _remember(self, ram: np.ndarray, random: np.ndarray) -> None:
        """Sets what a reset keeps; the rest is undefined until there is one.

        The emulator reads only what it wrote itself, and numbers.
        """
        before, old, after = _split(self.ale.cloneState().serialize())
        if (ram.shape, ram.dtype) != ((128,), np.uint8) or (
            random.shape,
            random.dtype,
        ) != ((len(old.split()),), np.uint32):
            raise ValueError("memory and random numbers are not of this game")
        text = " ".join(map(str, random.tolist())).encode()
        size = int.from_bytes(before[SIZE_AT : SIZE_AT + 4], "little")
        state = (
            before[:SIZE_AT],
            (size - len(old) + len(text)).to_bytes(4, "little"),
            before[SIZE_AT + 4 : RANDOM_AT],
            len(text).to_bytes(4, "little"),
            text,
            after,
        )
        self.ale.restoreState(ALEState(b"".join(state)))
        for index, value in enumerate(ram.tolist()):
            self.ale.setRAM(index, value)

    def _digest(self) -> np.ndarray:
        """Of memory and picture, uint8 (32,)."""
        seen = self.ale.getRAM().tobytes() + self.ale.getScreen().tobytes()
        return np.frombuffer(hashlib.sha256(seen).digest(), np.uint8)


def _split(state: bytes) -> tuple[bytes, bytes, bytes]:
    """A serialised emulator: before, of and after its random numbers."""
    begin = RANDOM_AT + 4
    end = begin + int.from_bytes(state[RANDOM_AT:begin], "little")
    if state[NAME_AT : NAME_AT + 6] != b"System" or end >= len(state):
        raise ValueError(
            "this version of ale-py writes its state in another way than "
            "dreamer/envs/emulator.py reads"
        )
    return state[:begin], state[begin:end], state[end:]
