"""Agents: LangChain, LangGraph, the Hugging Face Hub."""

import os
import pathlib
import warnings

import huggingface_hub
from huggingface_hub import _local_folder
from langchain_classic.storage import LocalFileStore
from langchain_community.chat_message_histories import FileChatMessageHistory
from langchain_core.callbacks import FileCallbackHandler
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import PromptTemplate
from langchain_core.vectorstores import InMemoryVectorStore
from langgraph.checkpoint.memory import InMemorySaver, PersistentDict
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from rows import tabulate

PACKAGES = {"LangChain": "langchain-core", "LangGraph": "langgraph", "huggingface_hub": "huggingface-hub"}
ROWS = []
row = tabulate(ROWS)


def write_history(path):
    history = FileChatMessageHistory(path)
    history.add_messages([HumanMessage("Hello"), AIMessage("Hallo, é")])
    FileChatMessageHistory(path).add_message(HumanMessage("Bye"))


def read_history(path):
    return [(message.type, message.content) for message in FileChatMessageHistory(path).messages]


def write_store(path):
    store = LocalFileStore(path)
    store.mset([("a", b"1"), ("d/b", b"2"), ("c", b"3")])
    store.mdelete(["c"])


def read_store(path):
    store = LocalFileStore(path)
    return sorted(store.yield_keys()), store.mget(["a", "d/b", "c"])


def write_log(path):
    with FileCallbackHandler(path) as handler:
        handler.on_text("one\n")
        handler.on_text("two\n")


def write_vectors(path):
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=4))
    store.add_texts(["one", "two"], ids=["1", "2"])
    store.dump(path)


def read_vectors(path):
    store = InMemoryVectorStore.load(path, DeterministicFakeEmbedding(size=4))
    return sorted(document.page_content for document in store.get_by_ids(["1", "2"]))


row("LangChain", "FileChatMessageHistory", write_history, read_history, by="path")
row("LangChain", "LocalFileStore", write_store, read_store, by="path", tree=True)
row("LangChain", "FileCallbackHandler", write_log, None, by="path")
row("LangChain", "InMemoryVectorStore.dump, load", write_vectors, read_vectors, by="path")


def write_prompt(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        PromptTemplate.from_template("Hello {name}").save(path)


row("LangChain", "PromptTemplate.save", write_prompt, None, by="path", name="a.json")


def count(state):
    return {"n": state["n"] + 1}


def graph(saver):
    made = StateGraph(dict)
    made.add_node("count", count)
    made.add_edge(START, "count")
    made.add_edge("count", END)
    return made.compile(checkpointer=saver)


def checkpoints(path):
    kept = PersistentDict(list, filename=path)
    if os.path.exists(path):
        kept.load()
    saver = InMemorySaver()
    result = graph(saver).invoke({"n": len(kept)}, {"configurable": {"thread_id": "1"}})
    kept[f"run {len(kept)}"] = [result["n"], len(list(saver.list({"configurable": {"thread_id": "1"}})))]
    kept.close()
    return sorted(kept.items())


row("LangGraph", "PersistentDict", checkpoints, checkpoints, by="path")


def write_saver(path):
    with SqliteSaver.from_conn_string(path) as saver:
        graph(saver).invoke({"n": 1}, {"configurable": {"thread_id": "1"}})


def read_saver(path):
    with SqliteSaver.from_conn_string(path) as saver:
        return len(list(saver.list({"configurable": {"thread_id": "1"}})))


row(
    "LangGraph",
    "SqliteSaver",
    write_saver,
    read_saver,
    by="path",
    instead="`PersistentDict`, or a connection in memory with [`serialize`, `deserialize`](#sqlite)",
)


def write_card(path):
    card = huggingface_hub.ModelCard("---\nlicense: mit\n---\n# Model é\n")
    card.save(path)


def read_card(path):
    card = huggingface_hub.ModelCard.load(path)
    return card.data.to_dict(), card.text


class Model(huggingface_hub.ModelHubMixin):
    """A model that keeps one number."""

    def __init__(self, number: int = 7):
        self.number = number

    def _save_pretrained(self, save_directory):
        (save_directory / "weights").write_text(str(self.number))

    @classmethod
    def _from_pretrained(cls, *, model_id, number=0, **kwargs):
        return cls(int((pathlib.Path(model_id) / "weights").read_text()) + number)


def write_metadata(path):
    os.makedirs(path)
    with open(os.path.join(path, "config.json"), "w") as f:
        f.write("{}")
    _local_folder.write_download_metadata(pathlib.Path(path), "config.json", "a" * 40, "etag")


def read_metadata(path):
    found = _local_folder.read_download_metadata(pathlib.Path(path), "config.json")
    return found and (found.commit_hash, found.etag)


def make_cache(path):
    snapshot = os.path.join(path, "models--a--b", "snapshots", "c" * 40)
    os.makedirs(snapshot)
    os.makedirs(os.path.join(path, "models--a--b", "refs"))
    for name, text in ((os.path.join(snapshot, "config.json"), "{}"), (snapshot + "/../../refs/main", "c" * 40)):
        with open(os.path.normpath(name), "w") as f:
            f.write(text)


def read_cache(path):
    found = huggingface_hub.scan_cache_dir(path)
    known = huggingface_hub.try_to_load_from_cache("a/b", "config.json", cache_dir=path)
    local = huggingface_hub.hf_hub_download("a/b", "config.json", cache_dir=path, local_files_only=True)
    return found.size_on_disk, [str(w) for w in found.warnings], os.path.basename(known), local == known


row("huggingface_hub", "ModelCard.save, load", write_card, read_card, by="path", name="README.md")
row(
    "huggingface_hub",
    "ModelHubMixin.save_pretrained, from_pretrained",
    lambda path: Model().save_pretrained(path),
    lambda path: Model.from_pretrained(path).number,
    by="path",
    tree=True,
)
row("huggingface_hub", "download metadata of a local directory", write_metadata, read_metadata, by="path", tree=True)
row("huggingface_hub", "a cache directory, to read", None, read_cache, make=make_cache, by="path", tree=True)
