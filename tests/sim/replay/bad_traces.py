#!/usr/bin/env python3
"""Good traces, each with one lie, for holdfast-replay: it must name the rule that the lie breaks, on that line.

    bad_traces.py REPLAY TRACE...        TAP; exit code 1 if a lie passes, or if no trace has a place for it

A lie about what was sent may show only where it is received: those are looked for on later lines, too.

What would break it: a judge that believes what the lines claim.
"""
import concurrent.futures
import copy
import itertools
import json
import os
import subprocess
import sys
import tempfile

LIES = []


def lie(rule, shows_later=False):
    def add(function):
        LIES.append((rule, shows_later, function))
        return function
    return add


class Place:
    """A line, and what its node said on the line before."""

    def __init__(self, line, before, seen):
        self.line, self.before, self.seen = line, before, seen

    def sends(self, kind):
        return [m for m in self.line.get("send", []) if m["type"] == kind]

    def own_log(self):
        return self.seen.get(("log", self.line["node"]), 0)

    def makes_config(self):
        appended = self.line.get("append", [[0, 0, 0, 0]])
        return self.line["role"] == "leader" and appended[0][3] == 2 and "incarnations" in self.line["configuration"]

    def received(self):
        return self.line.get("message", {}).get("type")


@lie("vote-once")
def a_second_vote_in_one_term(p):
    if p.before["vote"] and p.line["term"] == p.before["term"] and p.line["role"] == "follower":
        p.line["vote"] = p.before["vote"] % 3 + 1
        return True


@lie("vote-log")
def a_vote_for_an_older_log(p):
    if p.received() == "vote" and p.line["vote"] == 0 and p.line["leader"] == 0:
        asked = p.line["message"]
        older = (asked.get("log_term", 0), asked.get("index", 0)) < (p.before["last_term"], p.before["last"])
        if older and asked["term"] == p.line["term"]:
            p.line["vote"] = asked["from"]
            return True


@lie("vote")
def a_vote_for_nobody_who_asked(p):
    if p.line["event"] == "tick" and p.line["vote"] == 0 and p.line["term"] == p.before["term"]:
        p.line["vote"] = p.line["node"] % 3 + 1
        return True


@lie("campaign")
def a_candidacy_without_prevotes(p):
    if p.before["role"] == "follower" and p.line["role"] == "precandidate":
        p.line.update(role="candidate", term=p.line["term"] + 1, vote=p.line["node"], send=[])
        return True


@lie("leader")
def a_lead_without_votes(p):
    if p.before["role"] == "candidate" and p.line["event"] == "synced" and p.line["role"] == "candidate":
        p.line.update(role="leader", leader=p.line["node"], append=[[p.line["last"] + 1, 1, p.line["term"], 1]],
                      last=p.line["last"] + 1, last_term=p.line["term"], send=[])
        return True


@lie("state-unsynced")
def a_vote_answered_before_it_is_durable(p):
    if p.received() == "vote" and p.line["vote"] == p.line["message"]["from"] and p.before["vote"] != p.line["vote"]:
        p.line["send"] = [{"type": "vote_reply", "from": p.line["node"], "to": p.line["vote"], "term": p.line["term"],
                           "incarnation": p.own_log()}]
        return True


@lie("ack-unsynced")
def entries_acknowledged_before_they_are_durable(p):
    if p.line["event"] == "synced":
        p.seen[p.line["node"]] = p.line["group"]["term"]
    durable = p.seen.get(p.line["node"]) == p.line["term"]
    if p.received() == "append" and p.line.get("append") and "send" not in p.line and durable:
        p.line["send"] = [{"type": "append_reply", "from": p.line["node"], "to": p.line["leader"],
                           "term": p.line["term"], "index": p.line["last"], "incarnation": p.own_log()}]
        return True


@lie("synced")
def entries_counted_before_they_are_durable(p):
    if p.line["event"] == "propose" and p.line.get("append"):
        p.line["synced"] = p.line["last"]
        return True


@lie("network")
def an_acknowledgement_that_was_never_sent(p):
    if p.received() == "append_reply" and not p.line["message"].get("reject") and p.line["role"] == "leader":
        p.line["message"]["index"] += 1
        return True


@lie("network")
def an_entry_changed_on_the_way(p):
    if p.received() == "append" and len(p.line["message"].get("entries", [])) == 1 and p.line["term"] > 1:
        p.line["message"]["entries"][0][2] -= 1
        return True


@lie("commit-quorum")
def committed_before_a_quorum_has_it(p):
    if p.line["event"] == "propose" and p.line.get("append"):
        p.line["commit"] = p.line["last"]
        return True


@lie("commit-own-term")
def an_older_term_committed_by_counting(p):
    if p.before["role"] == "candidate" and p.line["role"] == "leader" and p.before["last"] > p.before["commit"]:
        p.seen["old"] = (p.line["node"], p.before["last"])
    if p.seen.get("old", (0,))[0] == p.line["node"] and p.before["role"] == "leader" and p.line["role"] == "leader" and \
            p.line["commit"] < p.seen["old"][1]:
        p.line["commit"] = p.seen["old"][1]
        return True


@lie("commit-match")
def a_follower_commits_past_its_leader(p):
    if p.received() == "heartbeat" and p.line["last"] > p.line["message"].get("commit", 0) >= p.line["commit"]:
        p.line["commit"] = p.line["last"]
        return True


@lie("heartbeat-commit")
def a_heartbeat_commits_what_its_receiver_lacks(p):
    for message in p.sends("heartbeat"):
        if message.get("commit", 0) < p.line["commit"]:
            message["commit"] = p.line["commit"]
            return True


@lie("commit")
def the_commit_goes_back(p):
    if p.line["commit"] > 1 and p.line["commit"] == p.before["commit"]:
        p.line["commit"] -= 1
        return True


@lie("cut-without-conflict")
def a_follower_cuts_what_nothing_conflicts_with(p):
    if p.received() == "append" and p.line.get("append") and "cut" not in p.line and p.line["commit"] > 2:
        p.line["cut"] = p.line["commit"] - 1
        return True


@lie("append")
def a_follower_leaves_a_stale_tail(p):
    if p.received() == "append" and "cut" in p.line:
        del p.line["cut"]
        return True


@lie("append")
def a_follower_skips_an_entry(p):
    if p.received() == "append" and p.line.get("append") and p.line["append"][0][1] > 1:
        p.line["append"][0][0] += 1
        p.line["append"][0][1] -= 1
        return True


@lie("leader-append-only")
def a_leader_cuts_its_log(p):
    if p.line["event"] == "propose" and p.line.get("append") and p.line["last"] > 3:
        p.line["cut"] = p.line["last"] - 2
        return True


@lie("term")
def the_term_goes_back(p):
    if p.line["term"] > 1 and p.line["term"] == p.before["term"]:
        p.line["term"] -= 1
        return True


@lie("read-round")
def a_read_without_a_confirmed_round(p):
    if p.line["event"] == "read" and "asked" in p.line and "ready" not in p.line and p.line["role"] == "leader":
        p.line["ready"] = [p.line["asked"], p.line["commit"]]
        return True


@lie("read-stale")
def a_read_from_before_it_was_asked(p):
    if p.line["event"] == "read" and "asked" in p.line:
        p.seen["asked"] = (p.line["asked"], p.line["commit"])
    if p.line["role"] == "leader" and "ready" in p.line and p.seen.get("asked", (0,))[0] == p.line["ready"][0] and \
            p.seen.get("noop", p.line["commit"]) < p.seen["asked"][1]:
        p.line["ready"][1] = p.seen["asked"][1] - 1
        return True
    if p.before["role"] == "candidate" and p.line["role"] == "leader":
        p.seen["noop"] = p.line["last"]


@lie("restart-state")
def a_restart_without_the_vote(p):
    if p.line["event"] == "start" and p.line["vote"]:
        p.line["vote"] = 0
        return True


@lie("restart-log")
def a_restart_without_the_newest_entry(p):
    if p.line["event"] == "start" and p.line["last"] == p.before.get("synced") and p.line.get("log"):
        if p.line["log"][-1][1] == 1:
            return False
        p.line["log"][-1][1] -= 1
        p.line["last"] -= 1
        p.line["synced"] -= 1
        p.line["commit"] = min(p.line["commit"], p.line["last"])
        return True


@lie("restart-loss")
def a_damaged_log_that_is_said_to_have_ended_earlier(p):
    end = max(p.line["last"], 1)  # 0 would say that nothing was lost
    if p.line["event"] == "start" and p.line.get("heal_index") and end < p.before.get("synced", 0):
        p.line.update(heal_index=end, heal_term=max(p.line["last_term"], 1))
        return True


@lie("restart-log")
def a_damaged_log_that_is_said_to_be_whole(p):
    if p.line["event"] == "start" and p.line.get("heal_index") and p.line["last"] < p.before.get("synced", 0):
        del p.line["heal_index"], p.line["heal_term"]
        return True


@lie("snapshot")
def a_snapshot_of_what_is_not_committed(p):
    if p.line["event"] == "installed" and p.line["commit"] == p.line["index"]:
        p.line["index"] += 1000
        return True


@lie("trim")
def entries_deleted_that_are_not_committed(p):
    if p.line["event"] == "trimmed":
        p.line["index"] = p.line["commit"] + 1
        return True


@lie("life")
def words_from_beyond(p):
    if p.line["event"] == "start" and p.before.get("last"):
        time = p.line["t"]
        p.line.clear()
        p.line.update(copy.deepcopy(p.before), event="tick", t=time)
        return True


@lie("membership")
def a_membership_that_nobody_made(p):
    if p.line["event"] == "receive" and p.line["t"] > 1000000:
        p.line["configuration"] = {"index": p.line["config"], "voters": [p.line["node"]]}
        return True


@lie("incarnation")
def a_restart_as_another_log(p):
    if p.line["event"] == "start" and p.before.get("last") and p.line.get("incarnation"):
        p.line["incarnation"] += 1
        return True


@lie("incarnation")
def a_first_entry_that_records_a_log_that_was_not_heard(p):
    if p.before["role"] == "candidate" and p.makes_config():
        for pair in p.line["configuration"]["incarnations"]:
            if pair[0] != p.line["node"]:
                pair[1] += 1
                return True


@lie("incarnation")
def a_voter_replaced_in_one_step(p):
    if p.before["role"] == "leader" and p.makes_config():
        for pair in p.line["configuration"]["incarnations"]:
            if pair[0] in p.line["configuration"]["voters"] and pair[0] != p.line["node"]:
                pair[1] += 1
                return True


# ---- Each field of a line, and of a message ------------------------------------------------------------------------


@lie("append")
def a_last_entry_that_is_not_there(p):
    if p.line["event"] == "tick" and p.line["last"] > 0:
        p.line["last"] += 1
        return True


@lie("append")
def a_last_term_that_is_not_the_entrys(p):
    if p.line["last_term"] > 0 and p.line["term"] > p.line["last_term"]:
        p.line["last_term"] += 1
        return True


@lie("leader")
def a_leader_of_this_term_who_never_was(p):
    if p.line["role"] == "follower" and p.line["leader"] not in (0, p.line["node"] % 3 + 1):
        p.line["leader"] = p.line["node"] % 3 + 1
        return True


@lie("leader")
def a_leader_that_calls_itself_a_follower(p):
    if p.line["role"] == "leader" and p.before["role"] == "leader" and p.line["event"] == "tick":
        p.line["role"] = "follower"
        return True


@lie("membership")
def another_configuration_in_use(p):
    if p.line["event"] == "tick":
        p.line["config"] += 1
        return True


@lie("change")
def voters_changed_in_one_step(p):
    made = p.line.get("configuration", {})
    if p.line["event"] == "change" and made.get("outgoing"):
        made["outgoing"] = []
        return True


@lie("send")
def an_append_behind_another_term(p):
    for message in p.sends("append"):
        if message.get("log_term", 0) > 1:
            message["log_term"] -= 1
            return True


@lie("send")
def an_append_behind_an_entry_that_is_not_there(p):
    for message in p.sends("append"):
        if message.get("index", 0) == p.line["last"]:
            message["index"] += 1
            return True


@lie("send")
def an_append_of_more_than_there_is(p):
    for message in p.sends("append"):
        message["count"] = p.line["last"] - message.get("index", 0) + 1
        return True


@lie("send")
def an_append_that_commits_too_much(p):
    for message in p.sends("append"):
        message["commit"] = p.line["commit"] + 1
        return True


@lie("send")
def an_append_refused_that_fits(p):
    if p.received() == "append" and p.line.get("append") is None:
        for message in p.sends("append_reply"):
            if not message.get("reject") and p.line["message"]["term"] == p.line["term"]:
                message.update(reject=True, index=p.line["message"].get("index", 0))
                return True


@lie("send")
def a_hint_that_is_not_in_the_log(p):
    for message in p.sends("append_reply"):
        if p.received() == "append" and message.get("reject") and message.get("hint_term", 0) > 0:
            message["hint_term"] += 1
            return True


@lie("network", shows_later=True)
def a_vote_refused_that_was_given(p):
    for message in p.sends("vote_reply"):
        if not message.get("reject"):
            message["reject"] = True
            return True


@lie("network")
def a_message_of_another_type_arrives(p):
    if p.received() == "append_reply":
        p.line["message"]["type"] = "heartbeat_reply"
        return True


@lie("network")
def a_commit_index_changed_on_the_way(p):
    if p.received() == "heartbeat" and p.line["message"].get("commit", 0) > 1:
        p.line["message"]["commit"] -= 1
        return True


@lie("network")
def an_entry_of_another_kind_arrives(p):
    if p.received() == "append" and len(p.line["message"].get("entries", [])) == 1 and \
            p.line["message"]["entries"][0][3] == 3:
        p.line["message"]["entries"][0][3] = 1
        return True


@lie("network")
def a_message_for_somebody_else(p):
    if p.received() == "heartbeat":
        p.line["message"]["to"] = p.line["node"] % 3 + 1
        return True


@lie("send")
def a_message_under_another_name(p):
    for message in p.line.get("send", []):
        message["from"] = message["to"]
        return True


@lie("send")
def a_message_of_another_term(p):
    for message in p.sends("heartbeat"):
        message["term"] += 1
        return True


@lie("send")
def a_round_confirmed_that_nobody_asked_for(p):
    for message in p.sends("heartbeat_reply"):
        message["round"] = message.get("round", 0) + 1
        return True


@lie("send")
def a_vote_asked_for_with_a_longer_log(p):
    for message in p.sends("vote"):
        message["index"] = message.get("index", 0) + 1
        message.setdefault("log_term", 1)
        return True


@lie("send")
def a_follower_that_hands_over(p):
    if p.line["role"] == "follower" and p.before["role"] == "follower" and p.sends("heartbeat_reply"):
        p.line["send"] = [{"type": "timeout_now", "from": p.line["node"], "to": p.line["leader"],
                           "term": p.line["term"]}]
        return True


def places(lines, functions):
    """For each of the functions that has one: the first place where its lie fits, as (number of the line, the line with the lie)."""
    found, before, seen = {}, {}, {function: {} for function in functions}
    for number, text in enumerate(lines, 1):
        line = json.loads(text)
        node = line.get("node")
        if line["event"] == "start":
            for function in functions:
                seen[function][("log", node)] = line.get("incarnation", 0)
        if node is None or line["event"] == "crash" or (node not in before and line["event"] != "start"):
            continue
        for function in functions if node in before else ():
            if function not in found and function(Place(line, before[node], seen[function])):
                found[function] = number, json.dumps(line) + "\n"
                line = json.loads(text)
        before[node] = line
        if len(found) == len(functions):
            break
    return found


def judge(replay, lines):
    with tempfile.NamedTemporaryFile("w", suffix=".ndjson") as file:
        file.writelines(lines)
        file.flush()
        run = subprocess.run([replay, file.name], capture_output=True, text=True, check=False)
    return run.returncode, (run.stdout + run.stderr).strip()


def judge_lie(replay, lines, at, lie_line, shows_later):
    """What comes behind the line matters only where a lie shows later."""
    return judge(replay, itertools.chain(lines[:at - 1], [lie_line], lines[at:] if shows_later else []))


def main():
    replay, traces = sys.argv[1], []
    for path in sys.argv[2:]:
        with open(path, encoding="utf-8") as file:
            traces.append(file.readlines())
    failed, number = 0, 0
    judged = {}  # by function: the line, and what will have been said of it
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        later = {function: shows_later for _, shows_later, function in LIES}
        for lines in traces:
            wanted = [function for function in later if function not in judged]
            for function, (at, lie_line) in places(lines, wanted).items():
                judged[function] = at, pool.submit(judge_lie, replay, lines, at, lie_line, later[function])
            if len(judged) == len(LIES):
                break
        for number, (rule, shows_later, function) in enumerate(LIES, 1):
            at, future = judged.get(function, (None, None))
            code, said = future.result() if future else (-1, "no trace has a place for it")
            good = code == 1 and (shows_later or f"line {at}: " in said) and f"rule {rule}: " in said
            failed |= not good
            print(f"{'ok' if good else 'not ok'} {number} - {function.__name__.replace('_', ' ')}: {rule}")
            if not good:
                print(f"# wanted line {at}; exit code {code}: {said[-300:]}")
    good_lines = traces[0]
    for title, lines in (("a cut line", good_lines[:5] + [good_lines[5][:20]]), ("no trace", ["{}\n"]), ("nothing", [])):
        number += 1
        code, said = judge(replay, lines)
        failed |= code != 2
        print(f"{'ok' if code == 2 else 'not ok'} {number} - bad input, {title}: {said.split(': ')[-1]}")
    print(f"1..{number}")
    sys.exit(1 if failed else 0)


main()
