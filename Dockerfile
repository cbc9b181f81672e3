# The page, without PyTorch: docker build -t mnist-app . && docker run --rm -p 7860:7860 mnist-app
FROM python:3.12-slim
WORKDIR /app
COPY constraints.txt pyproject.toml setup.cfg setup.py README.md ./
COPY mnist_fastai mnist_fastai
RUN pip install --no-cache-dir -c constraints.txt fastcore gradio numpy onnx onnxruntime pillow scipy
RUN pip install --no-cache-dir --no-deps .
USER 1000
ENV HOME=/tmp
EXPOSE 7860
# For programs alone: docker run --rm -p 8000:8000 mnist-app mnist-serve --host 0.0.0.0
CMD ["mnist-app", "--host", "0.0.0.0", "--no-browser"]
