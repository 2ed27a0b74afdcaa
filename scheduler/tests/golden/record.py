#!/usr/bin/env python3
"""Make a golden file of what a kernel chose for one service of a recorded scenario.

    ipvs-oracle run NAME.json -o RESULT.json        (or `ipvs-oracle schedule ... --scenario NAME.json` before it)
    record.py NAME.json RESULT.json SERVICE "how it was made" > NAME.txt

SERVICE is as in the ipvsadm lines: 10.0.0.100:80, or a firewall mark with the start of the addresses that get
it: 5=10.5.0.
"""
import json
import shlex
import sys

METHODS = {"-m", "-g", "-i"}


def words(line, service):
    """Command letter, service, and the options of an ipvsadm line as a dictionary."""
    parts = shlex.split(line)
    options, index = {}, 1
    while index < len(parts):
        if parts[index] in METHODS:
            index += 1
            continue
        options[parts[index]] = parts[index + 1]
        index += 2
    named = next(options[key] for key in ("-t", "-u", "-f") if key in options)
    return parts[0], named == service, options


def main():
    scenario, result = (json.load(open(path, encoding="utf-8")) for path in sys.argv[1:3])
    service, _, prefix = sys.argv[3].partition("=")
    print(f"# {sys.argv[4]}")
    letters = {}

    def letter(server):
        if server not in letters:
            letters[server] = chr(ord("A") + len(letters))
        return letters[server]

    for step, record in zip(scenario["steps"], result["results"], strict=True):
        lines = step.get("ipvsadm", [])
        for line in [lines] if isinstance(lines, str) else lines:
            command, ours, options = words(line, service)
            if not ours:
                continue
            if command in ("-A", "-E"):
                print(" ".join(["scheduler", options["-s"], *options.get("-b", "").split(",")]).rstrip())
                continue
            server = options["-r"] if ":" in options["-r"] else options["-r"] + ":0"
            name = letter(server)
            if command == "-d":
                print(f"delete {name}")
            else:
                limit = f" at most {options['-x']}" if "-x" in options else ""
                verb = {"-a": f"add {name} {server}", "-e": f"edit {name}"}[command]
                print(f"{verb} weight {options.get('-w', 1)}{limit}")
        if "open" in step:
            plan = step["open"]
            if plan["dst"] == service or (prefix and plan["dst"].startswith(prefix)):
                by_address = {name.rpartition(":")[0]: known for name, known in letters.items()}
                chosen = [
                    "-" if choice is None else letters.get(choice) or by_address[choice]
                    for choice in record["open"]["choices"]
                ]
                print("open", plan.get("proto", "tcp"), plan["src"], plan["dst"], "first", plan.get("first", 0),
                      "vary", plan.get("vary", "port"), plan.get("stride", 1), "->", "".join(chosen))
                ours_last = True
            else:
                ours_last = False
        if "close" in step and ours_last:
            print("close", *step["close"]["which"])


main()
