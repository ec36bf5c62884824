"""The 57 Atari games of the benchmark, by name.

Pure Python, so that settings are checked without loading the emulator. The
names are those of the emulator's ROM files. Section "Benchmarks" of "Mastering
diverse control tasks through world models" (arXiv 2301.04104v2) reports all
of them at 200M frames, and 26 of them at 400K frames. Read next: `atari.py`.
"""

from dreamer.options import ConfigError

GAMES = (
    "alien",
    "amidar",
    "assault",
    "asterix",
    "asteroids",
    "atlantis",
    "bank_heist",
    "battle_zone",
    "beam_rider",
    "berzerk",
    "bowling",
    "boxing",
    "breakout",
    "centipede",
    "chopper_command",
    "crazy_climber",
    "defender",
    "demon_attack",
    "double_dunk",
    "enduro",
    "fishing_derby",
    "freeway",
    "frostbite",
    "gopher",
    "gravitar",
    "hero",
    "ice_hockey",
    "jamesbond",
    "kangaroo",
    "krull",
    "kung_fu_master",
    "montezuma_revenge",
    "ms_pacman",
    "name_this_game",
    "phoenix",
    "pitfall",
    "pong",
    "private_eye",
    "qbert",
    "riverraid",
    "road_runner",
    "robotank",
    "seaquest",
    "skiing",
    "solaris",
    "space_invaders",
    "star_gunner",
    "surround",
    "tennis",
    "time_pilot",
    "tutankham",
    "up_n_down",
    "venture",
    "video_pinball",
    "wizard_of_wor",
    "yars_revenge",
    "zaxxon",
)

# Spellings that people and other programs use, and what they mean here.
ALIASES = {
    "james_bond": "jamesbond",
    "montezumas_revenge": "montezuma_revenge",
    "river_raid": "riverraid",
}


def rom_name(game: str) -> str:
    """The emulator's ROM of a game given by its name or an alias of it.

    Raises:
        ConfigError: if it is none of the 57 games.
    """
    rom = ALIASES.get(game, game)
    if rom not in GAMES:
        raise ConfigError(
            f"game is {game!r}, allowed: one of the 57 in dreamer.envs.games"
        )
    return rom
