"""Images: OpenCV."""

import cv2
import numpy
from rows import tabulate

PACKAGES = {"cv2 (OpenCV)": "opencv-python-headless"}
ROWS = []
row = tabulate(ROWS)
IMAGE = numpy.arange(30 * 40 * 3, dtype="u1").reshape(30, 40, 3)


def encode(f):
    f.write(cv2.imencode(".png", IMAGE)[1].tobytes())


def decode(f):
    return cv2.imdecode(numpy.frombuffer(f.read(), "u1"), cv2.IMREAD_COLOR).tolist()


def read_image(path):
    other = numpy.zeros_like(IMAGE)
    grey = cv2.imread(path, cv2.IMREAD_GRAYSCALE)
    found = cv2.imread(path)
    cv2.imread(path, other, cv2.IMREAD_COLOR)
    return grey.tolist(), found.tolist(), (found == other).all(), cv2.imread(path + "-not", flags=0)


def write_video(path):
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 5, (40, 30))
    for _ in range(3):
        writer.write(IMAGE)
    writer.release()


def read_video(path):
    capture = cv2.VideoCapture(path)
    try:
        return capture.isOpened(), capture.read()[0]
    finally:
        capture.release()


def write_storage(path):
    storage = cv2.FileStorage(path, cv2.FILE_STORAGE_WRITE)
    storage.write("a", IMAGE[0])
    storage.release()


def read_storage(path):
    storage = cv2.FileStorage(path, cv2.FILE_STORAGE_READ)
    try:
        return storage.getNode("a").mat().tolist()
    finally:
        storage.release()


COPY = "a copy in `/tmp`"
LIBRARY = "cv2 (OpenCV)"
row(LIBRARY, "imwrite, imread", lambda path: cv2.imwrite(path, IMAGE), read_image, by="path", name="a.png")
row(LIBRARY, "imencode, imdecode", encode, decode, by="object")
row(
    LIBRARY,
    "imwritemulti, imreadmulti",
    lambda path: cv2.imwritemulti(path, [IMAGE, IMAGE]),
    lambda path: [image.tolist() for image in cv2.imreadmulti(path)[1]],
    by="path",
    name="a.tiff",
    instead="`imencodemulti`, `imdecodemulti`",
)
row(
    LIBRARY,
    "imcount",
    None,
    cv2.imcount,
    make=lambda path: cv2.imwrite(path, IMAGE),
    by="path",
    name="a.png",
    instead=COPY,
)
row(LIBRARY, "VideoWriter, VideoCapture", write_video, read_video, by="path", name="a.avi", instead=COPY)
row(LIBRARY, "FileStorage", write_storage, read_storage, by="path", name="a.yml", instead=COPY)
