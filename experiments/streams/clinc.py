"""clinc150: ten domains of 15 intents each, from a local folder or from TFDS `clinc_oos`.

Source: Larson et al. 2019, An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction (CC BY 3.0).
Only in-scope queries are used, 100 / 20 / 30 of each intent in train / val / test.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from experiments.data.tfds_sets import records, tfds_builder
from experiments.streams.base import TextTask
from experiments.streams.sample import sample
from share_jax.errors import FormatError, InputError, message

DOMAINS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "banking": (
        "freeze_account", "routing", "pin_change", "bill_due", "pay_bill", "account_blocked",
        "interest_rate", "min_payment", "bill_balance", "transfer", "order_checks", "balance",
        "spending_history", "transactions", "report_fraud",
    ),
    "credit_cards": (
        "replacement_card_duration", "expiration_date", "damaged_card", "improve_credit_score",
        "report_lost_card", "card_declined", "credit_limit_change", "apr", "redeem_rewards",
        "credit_limit", "rewards_balance", "application_status", "credit_score", "new_card",
        "international_fees",
    ),
    "kitchen_and_dining": (
        "food_last", "confirm_reservation", "how_busy", "ingredients_list", "calories",
        "nutrition_info", "recipe", "restaurant_reviews", "restaurant_reservation",
        "meal_suggestion", "restaurant_suggestion", "cancel_reservation", "ingredient_substitution",
        "cook_time", "accept_reservations",
    ),
    "home": (
        "what_song", "play_music", "todo_list_update", "reminder", "reminder_update",
        "calendar_update", "order_status", "update_playlist", "shopping_list", "calendar",
        "next_song", "order", "todo_list", "shopping_list_update", "smart_home",
    ),
    "auto_and_commute": (
        "current_location", "oil_change_when", "oil_change_how", "uber", "traffic", "tire_pressure",
        "schedule_maintenance", "gas", "mpg", "distance", "directions", "last_maintenance",
        "gas_type", "tire_change", "jump_start",
    ),
    "travel": (
        "plug_type", "travel_notification", "translate", "flight_status", "international_visa",
        "timezone", "exchange_rate", "travel_suggestion", "travel_alert", "vaccines",
        "lost_luggage", "book_flight", "book_hotel", "carry_on", "car_rental",
    ),
    "utility": (
        "weather", "alarm", "date", "find_phone", "share_location", "timer", "make_call",
        "calculator", "definition", "measurement_conversion", "flip_coin", "spelling", "time",
        "roll_dice", "text",
    ),
    "work": (
        "pto_request_status", "next_holiday", "insurance_change", "insurance", "meeting_schedule",
        "payday", "taxes", "income", "rollover_401k", "pto_balance", "pto_request", "w2",
        "schedule_meeting", "direct_deposit", "pto_used",
    ),
    "small_talk": (
        "who_made_you", "meaning_of_life", "who_do_you_work_for", "do_you_have_pets",
        "what_are_your_hobbies", "fun_fact", "what_is_your_name", "where_are_you_from", "goodbye",
        "thank_you", "greeting", "tell_joke", "are_you_a_bot", "how_old_are_you",
        "what_can_i_ask_you",
    ),
    "meta": (
        "change_speed", "user_name", "whisper_mode", "yes", "change_volume", "no",
        "change_language", "repeat", "change_accent", "cancel", "sync_device", "change_user_name",
        "change_ai_name", "reset_settings", "maybe",
    ),
})  # fmt: skip
"""The domains in the order of the stream, each with its intents in the order of their labels."""

_TFDS_SPLITS = {"train": "train", "val": "validation", "test": "test"}


def clinc150(
    folder: str | os.PathLike[str] | None = None,
    data_dir: str | None = None,
    *,
    seed: int = 0,
    tasks: int = 10,
    train_per_task: int | None = None,
    test_per_task: int | None = None,
    test_split: str = "test",
) -> tuple[TextTask, ...]:
    """The first `tasks` domains of `DOMAINS`, one task each: `train` to learn from, `test` to be tested on.

    The 20 validation queries of each intent are in neither; `test_split="val"` puts them in place of the test, so that
    settings can be chosen without a look at the test.

    Args:
        folder: holds `data_full.json`; None takes TFDS `clinc_oos` (array_record, no TensorFlow).
        data_dir: TFDS folder; None is TFDS's own default.
        seed: of the order of the texts and of the subsets.
        tasks: 1 to 10.
        train_per_task: most training texts of a task, shared equally among its intents; None is all 1,500.
        test_per_task: the same for the test; None is all 450 (val: 300).
        test_split: "test" or "val".

    Raises:
        InputError: an argument out of range, or TFDS is wanted and not installed.
        FormatError: the folder's file cannot be read, or an intent is unknown or missing.
    """
    if not 1 <= tasks <= len(DOMAINS):
        raise InputError(message("tasks", got=tasks, expected=f"1 to {len(DOMAINS)}", fix="pass tasks=10"))
    if test_split not in ("test", "val"):
        raise InputError(message("test_split", got=repr(test_split), expected="test or val", fix="choose one"))
    parts = ("train", test_split)
    rows = _from_tfds(data_dir, parts) if folder is None else _from_folder(Path(folder), parts)
    train, test = (_by_intent(rows[part], part) for part in parts)

    def text_task(place: int, domain: str) -> TextTask:
        intents = DOMAINS[domain]
        keys = [[seed, place, label] for label in range(len(intents))]
        return TextTask(
            domain,
            intents,
            *sample([train[intent] for intent in intents], train_per_task, [[*key, 0] for key in keys]),
            *sample([test[intent] for intent in intents], test_per_task, [[*key, 1] for key in keys]),
        )

    return tuple(text_task(place, domain) for place, domain in enumerate(list(DOMAINS)[:tasks]))


def _from_folder(folder: Path, parts: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    path = folder / "data_full.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {part: [(str(text), str(intent)) for text, intent in data[part]] for part in parts}
    except (OSError, ValueError, TypeError, KeyError) as error:
        got = f"no {error} in it" if isinstance(error, KeyError) else error
        fix = "pass the folder with data_full.json, or none to take TFDS"
        raise FormatError(message(str(path), got=got, expected="CLINC150's full data", fix=fix)) from error


def _from_tfds(data_dir: str | None, parts: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    builder = tfds_builder("clinc_oos", data_dir)

    def rows(part: str) -> list[tuple[str, str]]:
        source = records(builder, _TFDS_SPLITS[part])
        return [(example["text"].decode(), example["intent_name"].decode()) for example in source]

    return {part: rows(part) for part in parts}


def _by_intent(rows: list[tuple[str, str]], part: str) -> Mapping[str, list[str]]:
    texts: dict[str, list[str]] = {intent: [] for intents in DOMAINS.values() for intent in intents}
    for text, intent in rows:
        name = re.sub(r"[^a-z0-9]+", "_", intent.lower()).strip("_")
        if name not in texts:
            fix = "pass CLINC150's in-scope data"
            raise FormatError(message(f"intent in {part}", got=repr(intent), expected="one of the 150", fix=fix))
        texts[name].append(text)
    if empty := [intent for intent, found in texts.items() if not found]:
        what, got = f"intents of {part}", f"no text for {empty[0]!r}"
        raise FormatError(message(what, got=got, expected="texts for all 150", fix="pass the full data"))
    return texts
