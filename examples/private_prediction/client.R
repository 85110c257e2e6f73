# Private prediction, a client in R, by way of reticulate: the same methods of the same worker.
#
#     RETICULATE_PYTHON=.venv/bin/python Rscript examples/private_prediction/client.R 4000 4001 4002     while serve.py runs: 7, 2, 1

library(reticulate)
sy <- import("syftlite", convert = FALSE)
np <- import("numpy", convert = FALSE)
data <- import_from_path("data", path = "examples", convert = FALSE)

# written out, since reticulate before 1.38 does not convert the arrays of NumPy 2
to_python <- function(x) np$reshape(as.vector(x), dim(x), order = "F")
to_r <- function(x) unlist(py_to_r(x$flatten()$tolist()))

ports <- commandArgs(trailingOnly = TRUE)
if (length(ports) == 0) ports <- c("4000", "4001", "4002")
workers <- lapply(ports, function(port) sy$TFEWorker(host = paste0("localhost:", port)))

client <- sy$TFEWorker()
invisible(client$connect_to_model(c(1, 28, 28, 1), c(1, 10), workers))

test <- data$load("mnist")$first(NULL, 3L)$test
for (i in 1:3) {
  picture <- matrix(to_r(test$select(0L, i - 1L)), 28, 28, byrow = TRUE)
  scores <- to_r(client$query_model(to_python(array(picture, c(1, 28, 28, 1)))))
  cat("it sees a", which.max(scores) - 1, "\n")
}
