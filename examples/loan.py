"""A decision app in twelve lines: what is read through ``read`` is recorded and replayed.

Run it with ``python examples/loan.py``, then ask ``srds log``.
"""

from srds import App, read

app = App("loan")
APPLICANTS = {"ada": (52.0, 9.0), "bob": (20.0, 14.0), "cyd": (31.0, 11.0)}


@app.decision(subject="name")
def grant(name: str) -> dict[str, object]:
    income = read("applicants", (name, "income"), lambda: APPLICANTS[name][0])
    debt = read("applicants", (name, "debt"), lambda: APPLICANTS[name][1])
    points = income - 2 * debt
    return {"answer": "approve" if points > 5 else "reject", "score": points}


if __name__ == "__main__":
    with app.open():
        print({name: grant(name)["answer"] for name in APPLICANTS})
