"""The tests of ``pytest -m quick``: what to run before each commit, in less than 90 seconds, of every folder."""

from pathlib import Path

TESTS = Path(__file__).parent

QUICK = frozenset(
    {
        "adapters/test_registry.py::test_what_a_method_cannot_use_is_refused_by_its_key",
        "adapters/test_starts.py::test_what_a_start_excludes_is_refused_before_the_run",
        "data/test_matrix.py::test_cut",
        "data/test_prepare.py",
        "data/test_refusals.py",
        "engine/test_controls.py::test_controls_hand_commands_over_in_order",
        "engine/test_daemon.py::test_the_socket_is_private_and_the_umask_is_left_alone",
        "engine/test_generation.py::test_a_conversation_that_fits_is_given_whole",
        "engine/test_kernels.py::test_only_kernels_that_the_hub_vouches_for_are_taken_unasked",
        "engine/test_link.py",
        "engine/test_loss_counts.py",
        "engine/test_padding_free.py::test_trained_places_are_those_before_labeled_tokens",
        "engine/test_preferences.py::test_each_loss_is_that_of_trl",
        "engine/test_queue.py::test_what_is_asked_of_it",
        "engine/test_reporting.py::test_a_reporter_that_fails_is_left_out_and_the_run_goes_on",
        "engine/test_training.py::test_stopping_saves_what_was_learned",
        "engine/test_trouble.py::test_a_full_disk_is_told_from_other_errors",
        "engine/test_trouble.py::test_parts_of_a_batch_hold_every_token_once",
        "estimate/test_estimate.py",
        "estimate/test_fastest.py",
        "estimate/test_mend.py",
        "estimate/test_stated_figures.py",
        "estimate/test_trace.py::test_allocator_keeps_splits_and_merges",
        "estimate/test_trace.py::test_sizes_are_read_as_products",
        "evaluation/test_bootstrap.py",
        "evaluation/test_overlap.py",
        "evaluation/test_preferences.py::test_ratings_are_private_and_the_last_of_the_same_replies_counts",
        "evaluation/test_result.py",
        "export/test_gguf.py::test_others_are_refused_by_name_with_the_way_out",
        "export/test_recipes.py::test_a_recipe_comes_back_as_it_went",
        "export/test_recipes.py::test_others_are_refused_in_a_sentence",
        "layers/test_host_checkpoints.py::test_losses_and_gradients_are_equal_to_the_bit",
        "models/test_skeleton.py",
        "runs/test_comparison.py",
        "runs/test_folder.py",
        "runs/test_hints.py",
        "runs/test_journal.py",
        "runs/test_naming.py",
        "runs/test_replay.py",
        "runs/test_trash.py",
        "screens/test_adapter.py::test_an_arrow_turns_the_rank_and_the_figures_move_and_say_how",
        "screens/test_app.py::test_digits_switch_tabs_and_the_header_keeps_the_recipe",
        "screens/test_architecture.py::test_the_tree_opens_down_to_one_layer",
        "screens/test_chat_pane.py::test_a_reply_streams_and_ends_with_its_figures",
        "screens/test_compare.py::test_a_run_without_a_step_and_one_with_no_numbers",
        "screens/test_data_pane.py::test_the_bundled_set_is_shown_record_by_record",
        "screens/test_knobs.py",
        "screens/test_loss_chart.py",
        "screens/test_models.py::test_enter_takes_the_model_and_the_header_follows",
        "screens/test_queue.py::test_a_damaged_file_is_said",
        "screens/test_runs_pane.py::test_a_line_tells_what_the_journal_says",
        "screens/test_series.py",
        "screens/test_train_pane.py::test_a_run_that_failed_says_why_and_can_be_copied",
        "screens/test_tree_rows.py",
        "serving/test_access.py",
        "test_atomic.py",
        "test_cli_json.py::test_every_command_with_json_is_described",
        "test_cluster.py::test_options_that_contradict_each_other_are_refused",
        "test_diagnose.py::test_a_process_killed_by_the_system",
        "test_fetching.py::test_on_a_terminal_it_is_a_bar_that_goes_away",
        "test_gpu.py::test_every_figure_of_a_gpu",
        "test_mcp.py::test_a_recipe_within_the_folder_or_of_the_hub_is_allowed",
        "test_paths.py",
        "test_plain_text.py",
        "test_preflight.py",
        "test_presets.py",
        "test_quick.py",
        "test_recipe.py",
        "test_remote.py::test_only_options_before_the_command_say_where",
        "test_settings.py",
        "test_sweep.py",
        "test_unforeseen.py",
        "test_units.py",
    }
)
"""Whole files, and single tests with all of their parameters, by their path below ``tests/``."""

FILES = frozenset(entry.partition("::")[0] for entry in QUICK)


def is_quick(path: Path, function: str) -> bool:
    """Whether a test function of a file is one of them."""
    file = path.relative_to(TESTS).as_posix()
    return file in QUICK or f"{file}::{function}" in QUICK


def has_quick(path: Path) -> bool:
    """Whether a file has such tests."""
    return path.relative_to(TESTS).as_posix() in FILES
