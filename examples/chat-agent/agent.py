import json
import llm

def process(state: dict) -> dict:
    try:
        with open("/state/history.json") as f:
            history = json.load(f)
    except FileNotFoundError:
        history = []
    history.append({"role": "user", "content": state["prompt"]})
    response = llm.chat(history)
    history.append({"role": "assistant", "content": response})
    with open("/state/history.json", "w") as f:
        json.dump(history, f)
    state["response"] = response
    return state
