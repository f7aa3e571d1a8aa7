"""Preferences between replies: the judge's, asked over HTTP in both orders, and how ratings are kept and summed."""

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import pytest

from tests.command_line import call
from tests.evaluation.test_result import evaluation
from workbench.errors import WorkbenchError
from workbench.evaluation.comparison_text import preference_text
from workbench.evaluation.judge import Judge, judge_of, judge_replies
from workbench.evaluation.preferences import FILE, Rating, add_ratings, preferences, preferences_of, read_ratings
from workbench.evaluation.result import BASE, AnsweredPrompt, save_evaluation
from workbench.runs.folder import RunFolder
from workbench.storage import settings
from workbench.storage.paths import Home

TOKEN = "sk-secret-token-1234"
PAIRS = {
    "Long wins": ("Yes.", "Yes, because it is so."),
    "Short wins": ("A longer reply of the base.", "No."),
    "Position decides": ("same length a", "same length b"),
    "Identical": ("Equal.", "Equal. "),
    "Silent": ("silent one", "silent two!"),
}


class Endpoint:
    """An OpenAI-compatible endpoint whose judge prefers the longer reply, and of two equally long ones the first."""

    def __init__(self):
        self.bodies = []
        self.tokens = []
        self.refuse_settings = False
        self.failures = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.bodies.append(body)
                outer.tokens.append(self.headers.get("Authorization"))
                if outer.failures:
                    self._send(outer.failures.pop(), {"error": f"no, {self.headers.get('Authorization')}"})
                elif outer.refuse_settings and "temperature" in body:
                    self._send(400, {"error": "unsupported parameter"})
                else:
                    assert self.path == "/v1/chat/completions"
                    self._send(200, {"choices": [{"message": {"content": outer.verdict(body)}}]})

            def _send(self, status, content):
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Retry-After", "0")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @staticmethod
    def verdict(body):
        question = body["messages"][1]["content"]
        a, b = (
            question.split(f"[Start of Reply {name}]\n")[1].split(f"\n[End of Reply {name}]")[0] for name in ("A", "B")
        )
        if a.startswith("silent"):
            return "I cannot say."
        return f"[[C]]? No: [[{'A' if len(a) >= len(b) else 'B'}]]"


@pytest.fixture
def endpoint():
    endpoint = Endpoint()
    yield endpoint
    endpoint.server.shutdown()
    endpoint.server.server_close()


def compared(pairs):
    """An evaluation in which base and run-01 replied to prompts."""
    (base,) = evaluation().judged
    tuned = base.model_copy(update={"name": "run-01", "folder": "adapter", "minus": base.figures})
    replies = {prompt: dict(zip((BASE, "run-01"), pair, strict=True)) for prompt, pair in pairs.items()}
    answered = [AnsweredPrompt(prompt=prompt, replies=pair) for prompt, pair in replies.items()]
    return evaluation(judged=[base, tuned], answered=answered)


def test_each_pair_is_judged_in_both_orders(endpoint):
    found = compared(PAIRS)
    told = []
    outcome = asyncio.run(judge_replies(Judge(endpoint.url, "wise"), found, told.append))
    scores = {rating.prompt: rating.scores for rating in outcome.ratings}
    assert scores == {
        "Long wins": (1.0, 1.0),
        "Short wins": (0.0, 0.0),
        # The first position won each time, which is a tie.
        "Position decides": (0.0, 1.0),
        "Identical": (0.5, 0.5),
    }
    assert outcome.unreadable == 1
    assert (told[0].fraction, told[-1].fraction) == (0, 1)
    # Two questions for each of three pairs, one for the pair without a verdict, none for the identical one.
    assert len(endpoint.bodies) == 7
    assert {body["model"] for body in endpoint.bodies} == {"wise"}
    assert endpoint.tokens == [None] * 7
    (one,) = preferences(outcome.ratings)
    assert (one.wins, one.losses, one.ties, one.win_rate.value, one.agreement) == (1, 1, 2, 0.5, 3 / 4)
    assert preference_text(one).startswith("The judge wise prefers run-01 to the base: win rate 50.0% (")


def test_the_order_of_asking_is_drawn(endpoint):
    pairs = {f"p{n}": (f"base {n}", f"tuned {n}!") for n in range(12)}
    asyncio.run(judge_replies(Judge(endpoint.url, "wise"), compared(pairs), lambda progress: None, seed=1))
    first = {}
    for body in endpoint.bodies:
        question = body["messages"][1]["content"]
        prompt = question.split("[Start of Prompt]\n")[1].split("\n")[0]
        first.setdefault(prompt, question.index("base ") < question.index("tuned"))
    assert set(first.values()) == {True, False}


def test_an_endpoint_without_a_temperature_and_a_busy_one_are_asked_again(endpoint):
    endpoint.refuse_settings = True
    found = compared({"Long wins": PAIRS["Long wins"]})
    asyncio.run(judge_replies(Judge(endpoint.url, "wise"), found, lambda progress: None))
    assert ["temperature" in body for body in endpoint.bodies] == [True, False, False]
    endpoint.failures = [503]
    outcome = asyncio.run(judge_replies(Judge(endpoint.url, "wise"), found, lambda progress: None))
    assert outcome.ratings[0].scores == (1.0, 1.0)


@pytest.mark.parametrize(("status", "words"), [(401, "refuses the token"), (404, "answers 404"), (302, "answers 302")])
def test_refusals_name_no_token(endpoint, status, words):
    endpoint.failures = [status] * 3
    found = compared({"Long wins": PAIRS["Long wins"]})
    with pytest.raises(WorkbenchError) as refused:
        asyncio.run(judge_replies(Judge(endpoint.url, "wise", TOKEN), found, lambda progress: None))
    assert words in refused.value.message
    assert endpoint.tokens[0] == f"Bearer {TOKEN}"
    assert TOKEN not in f"{refused.value}{refused.value!r}{Judge(endpoint.url, 'wise', TOKEN)!r}"


@pytest.mark.parametrize(
    ("url", "model", "variable", "words"),
    [
        ("", "wise", "", "No judge is configured"),
        ("http://host/v1", "", "", "No judge is configured"),
        ("ftp://host/v1", "wise", "", "is not the URL"),
        ("https://me:secret@host/v1", "wise", "", "may be secret"),
        ("http://example.com/v1", "wise", "JUDGE_TOKEN", "unencrypted"),
        ("https://example.com/v1", "wise", "NO_SUCH_VARIABLE", "NO_SUCH_VARIABLE is not set"),
    ],
)
def test_what_is_no_judge_is_refused(monkeypatch, url, model, variable, words):
    monkeypatch.setenv("JUDGE_TOKEN", TOKEN)
    with pytest.raises(WorkbenchError) as refused:
        judge_of(url, model, variable)
    assert words in refused.value.message
    assert "me:secret" not in str(refused.value)
    assert judge_of("http://127.0.0.1:8000/v1/", "wise", "JUDGE_TOKEN").token == TOKEN


def test_the_command_keeps_ratings_and_no_token(endpoint, run, home, monkeypatch):
    save_evaluation(run, compared(PAIRS))
    monkeypatch.setenv("JUDGE_TOKEN", TOKEN)
    arguments = ["--url", endpoint.url, "--model", "wise", "--token-variable", "JUDGE_TOKEN", "--save"]
    done = call(home, "judge", run.id, *arguments)
    assert done.returncode == 0, done.stderr
    assert "The judge wise prefers run-01 to the base" in " ".join(done.stdout.split())
    assert "1 pairs have no rating" in done.stdout
    assert set(endpoint.tokens) == {f"Bearer {TOKEN}"}
    # The settings name the judge from now on; judging again replaces its ratings of the same replies.
    told = json.loads(call(home, "judge", run.id, "--json").stdout)
    (one,) = told["preferences"]
    assert (one["wins"], one["losses"], one["ties"]) == (1, 1, 2)
    assert settings.read(home).judge.token_variable == "JUDGE_TOKEN"
    report = json.loads((run.path / "report.json").read_text())["preferences"]
    assert report == told["preferences"]
    assert "\n## Preferred replies\n" in (run.path / "report.md").read_text()
    for file in home.root.rglob("*"):
        assert not file.is_file() or TOKEN.encode() not in file.read_bytes(), file
    # The token of the settings' endpoint goes nowhere else.
    endpoint.tokens.clear()
    assert call(home, "judge", run.id, "--url", endpoint.url, "--json").returncode == 0
    assert set(endpoint.tokens) == {None}


def rating(score, prompt="p", **more):
    facts = {"time": 1.0, "rater": "user", "names": (BASE, "run-01"), "replies": ("a", "b"), "scores": (score,)}
    return Rating(prompt=prompt, **(facts | more))


def test_ratings_are_private_and_the_last_of_the_same_replies_counts(tmp_path):
    run = RunFolder(tmp_path)
    assert preferences_of(run) == []
    path = add_ratings(run, [rating(1.0), rating(0.0, "q"), rating(0.5, "r\ud800")])
    add_ratings(run, [rating(1.0, "q"), rating(1.0, "q", judge="wise", rater="judge", scores=(1.0, 0.5))])
    assert path.name == FILE
    assert path.stat().st_mode & 0o777 == 0o600
    with path.open("a") as file:
        file.write('{"time": 1, "rat')  # a full disk
    mine, judges = preferences(read_ratings(run))
    assert (mine.rater, mine.wins, mine.losses, mine.ties, mine.agreement) == ("user", 2, 0, 1, None)
    assert mine.win_rate.value == pytest.approx(2.5 / 3)
    assert (judges.judge, judges.wins, judges.agreement) == ("wise", 1, 0.0)
    text = preference_text(mine)
    assert text.startswith("You preferred run-01 to the base: win rate 83.3% (")
    assert text.endswith("of 3 prompts 2 better, 0 worse, 1 even.")


def test_the_interval_narrows_with_the_ratings():
    widths = []
    for count in (10, 40, 160):
        (one,) = preferences([rating(float(n % 2), f"p{n}") for n in range(count)])
        assert one.win_rate.value == 0.5
        widths.append(one.win_rate.high - one.win_rate.low)
    assert all(0.3 < after / before < 0.7 for before, after in pairwise(widths)), widths


def test_a_run_without_replies_is_refused(tmp_path, endpoint):
    home = Home(tmp_path)
    with pytest.raises(WorkbenchError, match="no replies"):
        asyncio.run(judge_replies(Judge(endpoint.url, "wise"), compared({}), lambda progress: None))
    assert call(home, "judge", "no-such-run").returncode == 1
