;; Wants 4 GiB of memory before it says a word.
;;
;; Must come of it: refused at load, naming the limit.
(memory $huge 65535)
