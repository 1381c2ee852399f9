"""OpenCV: images by `imdecode` and `imencode`; what has no such function is refused."""

from __future__ import annotations

import os

from asya_shim.adapters.by_path import of_state, refusing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict

    from asya_shim.adapters.by_path import Rows


def _imread(real: Callable[..., Any]) -> Any:
    def imread(filename: Any, *args: Any, **kwargs: Any) -> Any:
        import cv2
        import numpy

        try:
            with open(filename, "rb") as file:
                data = file.read()
        except (FileNotFoundError, IsADirectoryError):
            return None
        # imread(filename[, flags]) and imread(filename[, dst[, flags]])
        flags, dst = kwargs.get("flags", cv2.IMREAD_COLOR), kwargs.get("dst")
        for value in args:
            if isinstance(value, int):
                flags = value
            else:
                dst = value
        if not data:
            return None
        image = cv2.imdecode(numpy.frombuffer(data, numpy.uint8), flags)
        if image is not None and dst is not None and dst.shape == image.shape and dst.dtype == image.dtype:
            dst[...] = image
            return dst
        return image

    return imread


def _imwrite(real: Callable[..., Any]) -> Any:
    def imwrite(filename: Any, img: Any, *args: Any, **kwargs: Any) -> Any:
        import cv2

        done, data = cv2.imencode(os.path.splitext(os.fspath(filename))[1], img, *args, **kwargs)
        if done:
            with open(filename, "wb") as file:
                file.write(data.tobytes())
        return done

    return imwrite


_cv2_refusing = refusing("cv2")

ROWS: Dict[str, Rows] = {
    "cv2": (
        ("imread", of_state(0, "filename", _imread)),
        ("imwrite", of_state(0, "filename", _imwrite)),
        *(
            (name, _cv2_refusing)
            for name in (
                "haveImageReader",
                "imcount",
                "imreadWithMetadata",
                "imreadanimation",
                "imreadmulti",
                "imwriteWithMetadata",
                "imwriteanimation",
                "imwritemulti",
                "readOpticalFlow",
                "writeOpticalFlow",
            )
        ),
        *(
            (f"{kind}.{name}", refusing("cv2", 1))
            for kind in ("FileStorage", "VideoCapture", "VideoWriter")
            for name in ("__init__", "open")
        ),
    ),
}
