"""Images and workbooks: Pillow, openpyxl, pandas with both, fastparquet."""

import openpyxl
import pandas
import PIL.Image
from rows import tabulate

PACKAGES = {"Pillow": "pillow", "fastparquet": "fastparquet", "openpyxl": "openpyxl"}
ROWS = []
row = tabulate(ROWS)
FRAME = pandas.DataFrame({"n": range(20), "text": [f"é{i}" for i in range(20)]})
IMAGE = PIL.Image.linear_gradient("L").convert("RGB").resize((32, 20))


def seen(frame):
    return list(frame.columns), frame.to_numpy().tolist()


def pillow(kind):
    def read(source):
        with PIL.Image.open(source) as image:
            return image.format, image.size, image.convert("RGB").tobytes().hex()

    row("Pillow", f"Image.save, open ({kind})", lambda target: IMAGE.save(target, kind), read, name=f"a.{kind}")


for each in ("png", "jpeg", "tiff", "webp", "gif"):
    pillow(each)


def write_workbook(target):
    book = openpyxl.Workbook()
    book.active.append(["a", 1])
    book.save(target)


def read_workbook(source):
    book = openpyxl.load_workbook(source, read_only=True)
    try:
        return list(book.active.values)
    finally:
        book.close()


def write_sheets(target):
    with pandas.ExcelWriter(target, engine="openpyxl") as writer:
        FRAME.to_excel(writer, sheet_name="one", index=False)
        FRAME.to_excel(writer, sheet_name="two", index=False)


row("openpyxl", "Workbook.save, load_workbook", write_workbook, read_workbook, name="a.xlsx")
row(
    "pandas",
    "to_excel, read_excel",
    lambda target: FRAME.to_excel(target, index=False, engine="openpyxl"),
    lambda source: seen(pandas.read_excel(source)),
    name="a.xlsx",
)
row("pandas", "ExcelWriter, ExcelFile", write_sheets, lambda s: pandas.ExcelFile(s).sheet_names, name="a.xlsx")
row(
    "fastparquet",
    "pandas.to_parquet, read_parquet (engine='fastparquet')",
    lambda path: FRAME.to_parquet(path, engine="fastparquet"),
    lambda path: seen(pandas.read_parquet(path, engine="fastparquet")),
    by="path",
)
